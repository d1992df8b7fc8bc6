import { describe, expect, test } from 'vitest';
import { seededRandom } from '../../engine/adapters/memory-faults.ts';
import { type CastBallot, type VoteRule, decidedStep, electedBallot, isDecided } from '../../engine/job/vote.ts';

const ballot = (chain: number, step: number, key: string | null, verified: boolean | null = null): CastBallot =>
  ({ chain, step, answer: key === null ? null : `says ${key}`, key, verified });

describe('majority', () => {
  test('most ballots win', () => {
    expect(electedBallot('majority', [ballot(0, 5, 'a'), ballot(1, 6, 'b'), ballot(2, 7, 'b')])?.key).toBe('b');
  });

  test('among equals the key whose first ballot came at the lowest step wins, then the lowest chain', () => {
    expect(electedBallot('majority', [ballot(0, 9, 'a'), ballot(1, 6, 'b')])?.key).toBe('b');
    expect(electedBallot('majority', [ballot(1, 6, 'b'), ballot(0, 6, 'a')])?.key).toBe('a');
  });

  test('chains without an answer have no say', () => {
    expect(electedBallot('majority', [ballot(0, 1, null), ballot(1, 1, null), ballot(2, 9, 'a')])).toEqual({ chain: 2, answer: 'says a', key: 'a' });
    expect(electedBallot('majority', [ballot(0, 1, null)])).toBeNull();
  });

  test('a lead that ties at best is decided only for the key that came first', () => {
    const split = [ballot(0, 1, 'a'), ballot(1, 2, 'a'), ballot(2, 3, 'b')];
    expect(isDecided('majority', split, 1)).toBe(true);
    expect(isDecided('majority', [ballot(0, 1, 'b'), ballot(1, 2, 'a'), ballot(2, 3, 'a')], 1)).toBe(false);
    expect(isDecided('majority', split, 2)).toBe(false);
  });

  test('a newcomer needs strictly more ballots than the leader', () => {
    expect(isDecided('majority', [ballot(0, 1, 'a')], 1)).toBe(true);
    expect(isDecided('majority', [ballot(0, 1, 'a')], 2)).toBe(false);
    expect(isDecided('majority', [ballot(0, 1, null)], 1)).toBe(false);
  });
});

describe('the other rules', () => {
  test('first: the first chain to finish with an answer', () => {
    expect(electedBallot('first', [ballot(0, 9, 'a'), ballot(1, 3, null), ballot(2, 4, 'b')])?.key).toBe('b');
    expect(isDecided('first', [ballot(1, 3, null)], 1)).toBe(false);
    expect(isDecided('first', [ballot(1, 3, 'b')], 1)).toBe(true);
  });

  test('verifier: the first accepted ballot, and no answer rather than a wrong one', () => {
    const wrong = [ballot(0, 3, 'a', false), ballot(1, 4, 'b', false)];
    expect(electedBallot('verifier', wrong)).toBeNull();
    expect(isDecided('verifier', wrong, 1)).toBe(false);
    expect(electedBallot('verifier', [...wrong, ballot(2, 5, 'c', true)])?.key).toBe('c');
    expect(isDecided('verifier', [ballot(2, 5, 'c', true)], 7)).toBe(true);
  });

  test('none: chooses nothing and stops nobody early', () => {
    expect(electedBallot('none', [ballot(0, 1, 'a')])).toBeNull();
    expect(isDecided('none', [ballot(0, 1, 'a')], 1)).toBe(false);
  });

  test('every rule is decided when nobody is left', () => {
    for (const rule of ['majority', 'first', 'verifier', 'none'] as const) expect(isDecided(rule, [], 0)).toBe(true);
  });
});

/**
 * All histories of five chains that finish one after another, over two known keys, no answer, and keys nobody said before. Brute force
 * over every completion says whether the winner can still change.
 */
describe('early stop', () => {
  const keys = ['a', 'b', null] as const;
  const fresh = ['c', 'd'] as const;

  /** Every way in which the chains of `order` not yet in `so` can finish, one a step. */
  function completions(so: readonly CastBallot[], order: readonly number[], alphabet: readonly (string | null)[]): CastBallot[][] {
    const chain = order[so.length];
    if (chain === undefined) return [[...so]];
    return alphabet.flatMap((key) => completions([...so, ballot(chain, so.length + 1, key, key === 'a')], order, alphabet));
  }

  const winners = (rule: VoteRule, so: readonly CastBallot[], order: readonly number[]) =>
    new Set(completions(so, order, [...keys, ...fresh]).map((all) => electedBallot(rule, all)?.key ?? null));

  for (const rule of ['majority', 'first', 'verifier'] as const) {
    test(`${rule}: decided exactly when no completion changes the winner`, () => {
      let decided = 0;
      for (const order of [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 4, 1, 3]]) {
        for (let finished = 0; finished < order.length; finished++) {
          for (const so of completions([], order.slice(0, finished), keys)) {
            const remaining = order.length - finished;
            const possible = winners(rule, so, order);
            expect(isDecided(rule, so, remaining), JSON.stringify({ so, remaining })).toBe(possible.size === 1);
            if (possible.size === 1) {
              decided++;
              expect(electedBallot(rule, so)?.key ?? null).toBe([...possible][0]);
            }
          }
        }
      }
      expect(decided).toBeGreaterThan(50);
    });
  }

  test('chains that finish at one step are voted on together, in chain order', () => {
    for (const first of keys) {
      for (const second of keys) {
        const so = [ballot(1, 4, first), ballot(0, 4, second)];
        const possible = new Set([...keys, ...fresh].map((key) => electedBallot('majority', [...so, ballot(2, 5, key)])?.key ?? null));
        expect(isDecided('majority', so, 1)).toBe(possible.size === 1);
      }
    }
  });
});

describe('what is known of chains elsewhere', () => {
  const random = seededRandom(8);
  const draw = <T>(of: readonly T[]): T => of[Math.floor(random() * of.length)] as T;

  test('a step at which the vote is known to be decided is never before the first such step, and is it once every chain has been there', () => {
    let exact = 0;
    for (let i = 0; i < 5_000; i++) {
      const rule = draw(['majority', 'first', 'verifier'] as const);
      const all = Array.from({ length: draw([1, 2, 3, 4, 5]) }, (_, chain) => {
        const key = draw(['a', 'a', 'b', null]);
        return { chain, step: draw([1, 2, 3, 4]), answer: key, key, verified: key === 'a' };
      });
      const whole = decidedStep(rule, all);
      const first = [1, 2, 3, 4].find((step) => {
        const cast = all.filter((ballot) => ballot.step <= step);
        return isDecided(rule, cast, all.length - cast.length);
      });
      expect(whole).toEqual({ step: first, isExact: true });
      const seen = all.map((): number => draw([0, 1, 2, 3, 4]));
      const known = decidedStep(rule, all.map((ballot, chain) => (ballot.step <= (seen[chain] ?? 0) ? ballot : { unfinishedAt: seen[chain] ?? 0 })));
      if (known === null) continue;
      expect(known.step, JSON.stringify({ rule, all, seen })).toBeGreaterThanOrEqual(first as number);
      if (!known.isExact) continue;
      expect(known.step).toBe(first);
      exact++;
    }
    expect(exact).toBeGreaterThan(300);
  });
});
