/** What a client's JSON means before a schema looks at it: whether it is text at all, and which of its nulls say "not given". */
import type { z } from '@hono/zod-openapi';

import { HttpError } from './errors.ts';
import { HTTP_LIMITS } from './limits.ts';

/**
 * Half of a surrogate pair is no text: it would reach the model as another character than the one that was sent. And what is nested without
 * end could be neither stored nor rendered. `__proto__` JSON takes for a name as any other; what copies objects drops it in silence.
 * @throws HttpError that names the field.
 */
export function refuseMalformed(value: unknown): void {
  const left: Place[] = needsLook(value) ? [{ value, key: '', depth: 0, within: null }] : [];
  for (let next = left.pop(); next !== undefined; next = left.pop()) {
    const { value: inside, depth } = next;
    if (typeof inside === 'string') throw malformed(pathOf(next), 'must be well-formed text: it has half of a surrogate pair.');
    if (typeof inside !== 'object' || inside === null) continue;
    if (depth >= HTTP_LIMITS.JSON_DEPTH_MAX) throw malformed(pathOf(next).slice(0, 3), `must be nested at most ${HTTP_LIMITS.JSON_DEPTH_MAX} deep.`);
    if (Array.isArray(inside)) {
      for (let i = 0; i < inside.length; i++) if (needsLook(inside[i])) left.push({ value: inside[i], key: i, depth: depth + 1, within: next });
      continue;
    }
    const keys = Object.keys(inside);
    if (keys.length > HTTP_LIMITS.OBJECT_FIELDS_MAX) throw malformed(pathOf(next), `must have at most ${HTTP_LIMITS.OBJECT_FIELDS_MAX} fields.`);
    for (const key of keys) {
      const field = (inside as Record<string, unknown>)[key];
      if (!isWellFormed(key)) throw malformed(pathOf(next), 'must have names of well-formed text: one has half of a surrogate pair.');
      if (key === '__proto__') {
        const name = fieldName([...pathOf(next), key]);
        throw new HttpError('unsupported_parameter', `${name} is not supported.`, { param: name });
      }
      if (needsLook(field)) left.push({ value: field, key, depth: depth + 1, within: next });
    }
  }
}

/** Its path is put together only for who asks: there may be thousands. */
interface Place {
  readonly value: unknown;
  readonly key: PropertyKey;
  readonly depth: number;
  readonly within: Place | null;
}

function pathOf({ key, within }: Place): readonly PropertyKey[] {
  return within === null ? [] : [...pathOf(within), key];
}

/** Most of what there is are numbers and short texts of which nothing is to be said. */
function needsLook(value: unknown): boolean {
  return typeof value === 'string' ? !isWellFormed(value) : typeof value === 'object' && value !== null;
}

/**
 * As the schema reads it. A null that it refuses is a field that was not given, wherever it stands: OpenAI's clients write `stop: null` and
 * `reasoning: {effort: null}`, also of parameters that are not ours. A null that it takes (a JSON schema's `default`) stays.
 * @param value the caller's own: such nulls are removed from it.
 */
export function parseGiven<T extends z.ZodType>(schema: T, value: unknown): z.ZodSafeParseResult<z.infer<T>> {
  for (let round = 1; ; round++) {
    const parsed = schema.safeParse(value);
    if (parsed.success || round === ROUNDS_MAX || !removeNulls(parsed.error.issues, value)) return parsed as z.ZodSafeParseResult<z.infer<T>>;
  }
}

/** A name that stands in a message or a header of ours: those of fields, not what a client may have put in their place. */
export function fieldName(path: readonly PropertyKey[]): string {
  return path.map((part) => (isName(part) ? String(part) : '…')).join('.').slice(0, 200);
}

export function isName(part: PropertyKey): boolean {
  return /^[\w$.@[\]-]{1,64}$/.test(String(part));
}

export function at(value: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>((inside, key) => (inside as Record<PropertyKey, unknown> | null | undefined)?.[key], value);
}

/** One round finds all that stand beside each other; inside of what was refused as a whole there may be more. */
const ROUNDS_MAX = 8;

/** false: there was none. */
function removeNulls(issues: readonly z.core.$ZodIssue[], value: unknown): boolean {
  let removed = false;
  const remove = (holder: unknown, key: PropertyKey | undefined) => {
    if (key === undefined || typeof holder !== 'object' || holder === null || Array.isArray(holder)) return;
    const fields = holder as Record<PropertyKey, unknown>;
    if (fields[key] === null && delete fields[key]) removed = true;
  };
  for (const issue of issues) {
    const holder = at(value, issue.path.slice(0, -1));
    remove(holder, issue.path.at(-1));
    if (issue.code === 'unrecognized_keys') for (const key of issue.keys) remove(at(value, issue.path), key);
    if (issue.code === 'invalid_union') for (const option of issue.errors) if (removeNulls(option, at(value, issue.path))) removed = true;
  }
  return removed;
}

function malformed(path: readonly PropertyKey[], why: string): HttpError {
  const name = fieldName(path);
  return new HttpError('invalid_value', `${name === '' ? 'The body' : name} ${why}`, { param: name === '' ? null : name });
}

/** String.prototype.isWellFormed, which ES2023 does not declare. */
function isWellFormed(text: string): boolean {
  return (text as unknown as { isWellFormed(): boolean }).isWellFormed();
}
