/** Checks of answers against their prompts, by name. A verifier never throws and never guesses: what it cannot parse it rejects. */
import { EngineError } from '../core/errors.ts';

/** `prompt` is the user's text (or the rendered prompt), `answer` the extracted answer. */
export type Verifier = (prompt: string, answer: string) => boolean;

/** A prompt of these tasks has at most 29 words. */
const CHARS_MAX = 1_024;

const VERIFIERS: ReadonlyMap<string, Verifier> = new Map([['countdown', verifyCountdown]]);

/** @example verifierNamed('countdown')('3 8 2 7 target 24', '8 - 2 = 6 ; 7 - 3 = 4 ; 6 * 4 = 24') // true */
export function verifierNamed(name: string): Verifier {
  const verifier = VERIFIERS.get(name);
  if (verifier === undefined) {
    throw new EngineError('ERR_OPTION', `verifier must be one of ${[...VERIFIERS.keys()].join(', ')}; got ${JSON.stringify(name.slice(0, 64))}.`);
  }
  return verifier;
}

/** The port of scripts/train/data.py `verify`: countdown derivations, and `eval` expressions left to right modulo 100. */
function verifyCountdown(prompt: string, answer: string): boolean {
  if (prompt.length > CHARS_MAX || answer.length > CHARS_MAX) return false;
  const words = answer.trim().split(/\s+/);
  const countdown = /(?:^|\s)(\d{1,2}(?: \d{1,2})+) target (\d{1,2})(?:\s|$)/.exec(prompt);
  if (countdown !== null) return derives(words, (countdown[1] ?? '').split(' ').map(Number), Number(countdown[2]));
  const expression = /(?:^|\s)eval (\d{1,2}(?: [-+*] \d{1,2})+)(?:\s|$)/.exec(prompt)?.[1];
  return expression !== undefined && words.length === 1 && words[0] === String(evaluate(expression.split(' ')));
}

/** Valid steps `a op b = c`, every number used once, ending in the target. */
function derives(words: readonly string[], numbers: readonly number[], target: number): boolean {
  const pool = [...numbers];
  let last: number | null = null;
  for (let at = 0; at < words.length; at += 6) {
    const [a, op, b, equals, c, separator] = words.slice(at, at + 6);
    const [left, right, result] = [natural(a), natural(b), natural(c)];
    if (left === null || right === null || result === null || equals !== '=') return false;
    if (separator !== undefined && (separator !== ';' || at + 6 >= words.length)) return false;
    if (apply(left, op, right) !== result || !take(pool, left) || !take(pool, right)) return false;
    pool.push(result);
    last = result;
  }
  return pool.length === 1 && last === target;
}

/** Results outside 0..99 and differences below zero do not exist in this game. */
function apply(a: number, op: string | undefined, b: number): number | null {
  const result = op === '+' ? a + b : op === '-' ? a - b : op === '*' ? a * b : -1;
  return result >= 0 && result < 100 ? result : null;
}

function evaluate(expression: readonly string[]): number {
  let value = Number(expression[0]);
  for (let i = 1; i + 1 < expression.length; i += 2) {
    const operand = Number(expression[i + 1]);
    const op = expression[i];
    value = (((op === '+' ? value + operand : op === '-' ? value - operand : value * operand) % 100) + 100) % 100;
  }
  return value;
}

/** Numbers are single tokens of the vocabulary: 0..99 without leading zeros. */
function natural(word: string | undefined): number | null {
  return word !== undefined && /^(?:0|[1-9]\d?)$/.test(word) ? Number(word) : null;
}

function take(pool: number[], value: number): boolean {
  const at = pool.indexOf(value);
  if (at < 0) return false;
  pool.splice(at, 1);
  return true;
}
