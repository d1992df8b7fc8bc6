import { describe, expect, test } from 'vitest';
import { type AnswerRule, DEFAULT_THINKING, answerKey, extractAnswer, patternProblem, splitThinking, jsonKey } from '../../engine/job/answer.ts';
import { cpuMs } from '../helpers/cpu.ts';

const from = (text: string, rule: AnswerRule, ended = true) => extractAnswer(text, rule, ended);

describe('thinking', () => {
  test('the answer is what follows the first closing delimiter', () => {
    expect(splitThinking('<think>a</think> b </think> c', DEFAULT_THINKING, false)).toEqual({ thinking: 'a', answer: ' b </think> c' });
    expect(splitThinking('a </think> b', DEFAULT_THINKING, true)).toEqual({ thinking: 'a ', answer: ' b' });
  });

  test('what was not opened is not closed', () => {
    expect(splitThinking('a </think> b', DEFAULT_THINKING, false)).toEqual({ thinking: '', answer: 'a </think> b' });
    expect(splitThinking('<think>a', DEFAULT_THINKING, false)).toEqual({ thinking: 'a', answer: null });
  });

  test('a chain that did not finish its thinking has no answer', () => {
    expect(splitThinking('the answer is \\boxed{4}', DEFAULT_THINKING, true).answer).toBeNull();
    expect(splitThinking('\n<think> \\boxed{4}', DEFAULT_THINKING, false).answer).toBeNull();
  });

  test('a chain that does not think answers with all of its text', () => {
    expect(splitThinking('42', DEFAULT_THINKING, false).answer).toBe('42');
    expect(splitThinking('</think>42', null, true).answer).toBe('</think>42');
  });
});

describe('extraction', () => {
  test.each<[string, AnswerRule, string | null]>([
    ['so \\boxed{\\frac{1}{2}} and \\boxed{ {a}{b} }.', { rule: 'boxed' }, '{a}{b}'],
    ['\\boxed{1} then \\boxed{2', { rule: 'boxed' }, '1'],
    ['\\boxed{a\\}b}', { rule: 'boxed' }, 'a\\}b'],
    ['\\boxed{}', { rule: 'boxed' }, null],
    ['no box', { rule: 'boxed' }, null],
    ['from 3 to 1,234.5 apples', { rule: 'last_number' }, '1,234.5'],
    ['x = -7.', { rule: 'last_number' }, '-7'],
    ['about 3 / 4 of it', { rule: 'last_number' }, '3/4'],
    ['v2 none', { rule: 'last_number' }, null],
    ['A or B? The answer is (C). Definitely', { rule: 'choice' }, 'C'],
    ['maybe B', { rule: 'choice' }, 'B'],
    ['Because', { rule: 'choice' }, null],
    [' answer 8 - 2 = 6 ; 6 * 4 = 24 ', { rule: 'after', marker: 'answer' }, '8 - 2 = 6 ; 6 * 4 = 24'],
    ['Answer: 5\nmore', { rule: 'after', marker: 'answer' }, '5'],
    ['The answer is: 5', { rule: 'after', marker: 'answer' }, '5'],
    ['no marker', { rule: 'after', marker: 'answer' }, null],
    [' all of it\n', { rule: 'exact' }, 'all of it'],
    ['id=1; id=22;', { rule: 'pattern', pattern: 'id=(\\d+)' }, '22'],
    ['id=1', { rule: 'pattern', pattern: 'ID' }, null],
    ['answer 3 but \\boxed{4} of 5', { rule: 'auto' }, '4'],
    ['answer 3', { rule: 'auto' }, '3'],
    ['it makes 3 or 5', { rule: 'auto' }, '5'],
    ['so the sum is **12**.', { rule: 'auto' }, '12'],
    ['The capital of France is Paris.', { rule: 'auto' }, 'The capital of France is Paris.'],
    ['In 12 words: Paris', { rule: 'auto' }, 'In 12 words: Paris'],
  ])('%j by %o is %j', (text, rule, answer) => {
    expect(from(text, rule)).toBe(answer);
  });

  test('a chain that was cut answers only with a closed box', () => {
    expect(from('answer 12', { rule: 'after', marker: 'answer' }, false)).toBeNull();
    expect(from('so 12', { rule: 'last_number' }, false)).toBeNull();
    expect(from('answer \\boxed{12} bec', { rule: 'auto' }, false)).toBe('12');
    expect(from('answer \\boxed{12', { rule: 'boxed' }, false)).toBeNull();
  });

  test('an answer too long to compare is none', () => {
    expect(from(`\\boxed{${'9'.repeat(5_000)}}`, { rule: 'boxed' })).toBeNull();
    expect(from('x'.repeat(5_000), { rule: 'exact' })).toBeNull();
  });

  test('a megabyte of near-misses takes no time', () => {
    const start = cpuMs();
    for (const text of ['\\boxed{'.repeat(200_000), '1,'.repeat(500_000), 'answer is '.repeat(100_000), '{'.repeat(1_000_000)]) {
      for (const rule of ['auto', 'boxed', 'last_number', 'choice'] as const) from(text, { rule });
    }
    expect(cpuMs() - start).toBeLessThan(5_000);
  });
});

describe('patterns', () => {
  test('shapes that backtrack without bound are refused, useful ones are not', () => {
    for (const good of ['ANSWER:\\s*(\\d+)', '(?:yes|no)', '\\[(\\w+)\\]', '[*+]+', '(?<x>.*?)\\s*$', '(a)?b']) expect(patternProblem(good)).toBeNull();
    for (const bad of ['', '(a+)+', '(a|a)*b', '(.*)*', '(', '(a)\\1', 'a*a*a*b', '(a{1,9}){1,9}', '(ab){2}', 'a?'.repeat(5), 'x'.repeat(257)]) {
      expect(patternProblem(bad)).toMatch(/^must/);
    }
  });

  test('the slowest pattern that passes is over in seconds', () => {
    const slow = 'a?a?a?a?a*a*b';
    expect(patternProblem(slow)).toBeNull();
    const start = cpuMs();
    expect(from('a'.repeat(60_000), { rule: 'pattern', pattern: slow })).toBeNull();
    expect(cpuMs() - start).toBeLessThan(20_000);
  });
});

describe('keys', () => {
  test.each([
    ['1,000', '1000'], ['3.0', '3'], ['3.10', '3.1'], ['+7', '7'], ['-0.0', '0'], ['007', '7'], ['.5', '0.5'], [' 42. ', '42'], ['$42$', '42'],
    ['$\\text{1{,}000.0}$', '\\text{1,000.0}'], ['\\text{ yes }', 'yes'], ['\\boxed{5}', '5'], ['**B**', 'B'], ['\\(x\\)', 'x'], ['$$2$$', '2'],
    ['1/2', '1/2'], ['\\dfrac{1}{2}', '\\frac{1}{2}'], ['a   b\n c', 'a b c'], ['1,00', '1,00'], ['−5', '-5'], ['12345678901234567890.0', '12345678901234567890'],
    ['wait...', 'wait...'],
  ])('%j compares as %j', (answer, key) => {
    expect(answerKey(answer)).toBe(key);
  });

  test('a key is its own key', () => {
    for (const answer of ['$\\text{3.0}$', '**1,000.**', '\\frac12', 'x.', '$a$ and $b$']) expect(answerKey(answerKey(answer))).toBe(answerKey(answer));
  });
});

test('answers that are JSON are compared by what they say', () => {
  expect(jsonKey('{ "b": {"d": [1.0, 2], "c": null},\n "a": "x" }')).toBe(jsonKey('{"a":"x","b":{"c":null,"d":[1,2]}}'));
  expect(jsonKey('{"a": [1, 2]}')).not.toBe(jsonKey('{"a": [2, 1]}'));
  expect(jsonKey('{"__proto__": 1}')).toBe('{"__proto__":1}');
  expect(jsonKey('{"a": 1')).toBe('{"a": 1');
});
