/** How much JSON a text is, before it is parsed. */
import { describe, expect, test } from 'vitest';

import { crowdOf } from '../../engine/core/json-size.ts';
import { LIMITS } from '../../engine/core/limits.ts';

const list = (count: number, item: string) => `[${Array.from({ length: count }, () => item).join(',')}]`;

describe('a text', () => {
  test.each<[string, string]>([
    ['a long text', JSON.stringify('":[{,'.repeat(100_000))],
    ['a text that ends in backslashes, and quotes within', `["${'\\\\'.repeat(40_000)}","${'\\"[{'.repeat(40_000)}"]`],
    ['as many token ids as any model takes', list(LIMITS.LENGTH_MAX, '1')],
    ['as many fields as there may be', `{${Array.from({ length: LIMITS.JSON_FIELDS_MAX - 1 }, (_, i) => `"${i}":1`).join(',')}}`],
    ['what is no JSON, without an end', `"${'{'.repeat(100_000)}`],
  ])('of %s is not too much', (_, text) => {
    expect(crowdOf(text)).toBeNull();
  });

  test.each<[string, string, RegExp]>([
    ['fields', `{${Array.from({ length: LIMITS.JSON_FIELDS_MAX }, (_, i) => `"${i}":1`).join(',')}}`, /fields, objects and lists$/],
    ['empty lists', list(LIMITS.JSON_FIELDS_MAX, '[]'), /fields, objects and lists$/],
    ['nested lists', '['.repeat(100_000), /fields, objects and lists$/],
    ['empty texts', list(LIMITS.JSON_TEXTS_MAX + 1, '""'), /texts and words$/],
    ['nulls', list(LIMITS.JSON_TEXTS_MAX + 1, 'null'), /texts and words$/],
    ['booleans', list(LIMITS.JSON_TEXTS_MAX / 2 + 1, 'true,false'), /texts and words$/],
    ['numbers', list(LIMITS.JSON_NUMBERS_MAX + 2, '1'), /numbers$/],
  ])('of more %s than anything has is', (_, text, why) => {
    expect(crowdOf(text)).toMatch(why);
  });
});
