/** What the native tests share: setup.ts and an assertion. */
import { expect } from 'vitest';

import type { ErrorCode } from '../../engine/core/errors.ts';

export * from './setup.ts';

export async function expectCode(code: ErrorCode, call: () => unknown): Promise<Error> {
  let caught: unknown;
  try {
    await call();
  } catch (error) {
    caught = error;
  }
  expect(caught, `expected ${code}, but the call succeeded`).toBeInstanceOf(Error);
  expect(caught).toMatchObject({ name: 'EngineError', code });
  return caught as Error;
}
