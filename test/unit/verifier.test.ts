import { describe, expect, test } from 'vitest';
import { DEFAULT_THINKING, extractAnswer, splitThinking } from '../../engine/job/answer.ts';
import { verifierNamed } from '../../engine/job/verifier.ts';
import { type Problem, readProblems } from './support.ts';

const verify = verifierNamed('countdown');
const problems = readProblems();

/** What a chain that wrote the stored solution would answer. */
function stored({ task, solution }: Problem): string {
  return task === 'eval' ? (solution.split('answer ')[1] ?? '') : solution;
}

describe('the countdown verifier', () => {
  test('accepts the stored solution of every one of the 500 problems, from its content and from its rendered prompt', () => {
    expect(problems.length).toBe(500);
    const refused = problems.filter((p) => !verify(p.content, stored(p)) || !verify(p.prompt, stored(p)));
    expect(refused.map((p) => p.id)).toEqual([]);
  });

  test('rejects every solution with one word changed, dropped or repeated', () => {
    const accepted: string[] = [];
    for (const problem of problems.filter((p) => p.task !== 'eval').slice(0, 150)) {
      const words = stored(problem).split(' ');
      for (const [i, word] of words.entries()) {
        const other = /^\d+$/.test(word) ? String((Number(word) + 1) % 100) : word === '+' ? '-' : word === '-' ? '*' : word === '*' ? '+' : word === '=' ? ':' : '=';
        for (const mutant of [words.with(i, other), words.toSpliced(i, 1), words.toSpliced(i, 0, word)]) {
          if (verify(problem.content, mutant.join(' '))) accepted.push(`${problem.id}: ${mutant.join(' ')}`);
        }
      }
    }
    // 2 + 2 and 2 * 2, n + 0 and n - 0 are equal: such mutants are right, and only such.
    expect(accepted.filter((text) => !/\b2 [+*] 2 = 4\b|\b(\d+) [-+] 0 = \1\b/.test(text))).toEqual([]);
  });

  test('rejects every eval answer but the right one', () => {
    for (const problem of problems.filter((p) => p.task === 'eval')) {
      const accepted = Array.from({ length: 100 }, (_, n) => String(n)).filter((n) => verify(problem.content, n));
      expect(accepted).toEqual([String(problem.answer)]);
    }
  });

  test('every number is used exactly once and the target is reached at the end', () => {
    expect(verify('3 8 2 7 target 24', '8 - 2 = 6 ; 7 - 3 = 4 ; 6 * 4 = 24')).toBe(true);
    expect(verify('3 8 2 7 target 24', '8 * 3 = 24')).toBe(false);
    expect(verify('3 8 target 24', '8 * 3 = 24 ;')).toBe(false);
    expect(verify('3 8 target 24', '3 * 8 = 24')).toBe(true);
    expect(verify('3 8 target 5', '3 - 8 = 5')).toBe(false);
    expect(verify('20 30 target 60', '20 * 30 = 600')).toBe(false);
  });

  test('rejects what it cannot parse, however long', () => {
    for (const answer of ['', ' ', '59', 'x', '13 + 8 = 21', '1'.repeat(1e6), '03 * 8 = 24']) expect(verify('3 8 target 24', answer)).toBe(false);
    expect(verify('what is 2 + 2?', '4')).toBe(false);
    expect(verify('1 '.repeat(1e5), '1')).toBe(false);
  });

  test('an unknown verifier is named with what there is', () => {
    expect(() => verifierNamed('magic')).toThrow(expect.objectContaining({ code: 'ERR_OPTION', message: expect.stringContaining('countdown') }));
  });

  test('the answer of a whole chain goes from text to verdict', () => {
    const text = '3 8 2 7 : … goal </think> answer 8 - 2 = 6 ; 7 - 3 = 4 ; 6 * 4 = 24';
    const { answer } = splitThinking(text, DEFAULT_THINKING, true);
    expect(verify('3 8 2 7 target 24', extractAnswer(answer ?? '', { rule: 'after', marker: 'answer' }, true) ?? '')).toBe(true);
  });
});
