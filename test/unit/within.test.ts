import { expect, test } from 'vitest';
import { withinMs } from '../../engine/core/within.ts';

const late = () => new Error('late');

test('what is done in time gives its result, and throws what it throws', () => {
  expect(withinMs(60_000, () => 7, late)).toBe(7);
  expect(withinMs(60_000, () => undefined, late)).toBeUndefined();
  const error = new TypeError('own');
  expect(() => withinMs(60_000, () => { throw error; }, late)).toThrow(error);
});

test.each([
  ['a loop', () => { for (;;); }],
  ['a regular expression that backtracks', () => /^(a+)+$/.test(`${'a'.repeat(60)}b`)],
  ['one that catches everything', () => { for (;;) try { throw new Error('x'); } catch { /* on */ } }],
])('%s without end is ended, and the next work runs', (_, work: () => unknown) => {
  expect(() => withinMs(50, work, late)).toThrow('late');
  expect(withinMs(60_000, () => 'next', late)).toBe('next');
});

test('bounds nest: the inner one ends the inner work only', () => {
  expect(withinMs(60_000, () => {
    try {
      return withinMs(20, () => { for (;;); }, late);
    } catch {
      return 'outer';
    }
  }, late)).toBe('outer');
});
