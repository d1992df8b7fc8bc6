import { EngineError } from './errors.ts';

/**
 * A rule of the engine itself, checked in production too. A failure is our bug, never the caller's.
 * @example assert(kept <= total, 'more survivors than tokens');
 */
export function assert(condition: unknown, rule: string): asserts condition {
  if (!condition) throw new EngineError('ERR_INTERNAL', `Broken rule: ${rule}.`);
}

/** Ends an exhaustive switch: a new member of the union becomes a compile error here. */
export function assertNever(value: never): never {
  throw new EngineError('ERR_INTERNAL', `Unhandled case: ${JSON.stringify(value)}.`);
}
