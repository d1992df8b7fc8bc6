/** What stands behind the question mark of an address, which is text: what each endpoint takes of it is its schema's to say. */
import { z } from '@hono/zod-openapi';

import { HttpError } from './errors.ts';
import { fieldName } from './given.ts';
import { HTTP_LIMITS } from './limits.ts';

/**
 * What is there and empty of what `schema` knows was not given, which is what clients mean by `?after=`.
 * @throws HttpError: of two values one would be ignored.
 */
export function queryOf({ url }: Request, schema: z.ZodType): Record<string, string> {
  const given = new URL(url).searchParams;
  const seen = new Set<string>();
  for (const name of given.keys()) {
    if (seen.has(name)) throw new HttpError('invalid_value', `${fieldName([name])} must be given once.`, { param: fieldName([name]) });
    seen.add(name);
  }
  const known = schema instanceof z.ZodObject ? schema.shape : {};
  return Object.fromEntries([...given].filter(([name, text]) => text !== '' || !Object.hasOwn(known, name)));
}

/** Whoever counts in a query does it with so many digits at most: a double has them all. */
const NUMBER_MAX = 10 ** 15 - 1;

/** Digits and nothing else: other texts that JavaScript takes for numbers (`0x5`, `1e1`, ` 3`, none at all) were meant otherwise. */
export function wholeNumber(min: number, max: number = NUMBER_MAX) {
  const isOne = (text: string) => /^-?\d{1,15}$/.test(text) && Number(text) >= min && Number(text) <= max;
  return z.string().refine(isOne, { error: `must be a whole number from ${min} to ${max}` }).transform(Number).openapi({ type: 'integer', minimum: min, maximum: max });
}

export const listLimit = wholeNumber(1, HTTP_LIMITS.LIST_MAX).default(HTTP_LIMITS.LIST_DEFAULT);
