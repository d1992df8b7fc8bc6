/** What a fleet is scaled by, as arithmetic. */
import { Script, createContext } from 'node:vm';
import { expect, test } from 'vitest';

import { perWorker } from '../lib/signals.ts';

/** The few functions of CloudWatch's metric math that are used; `null` is a minute without a value. */
function valueOf(expression: string, values: Readonly<Record<string, number | null>>): number {
  const context = createContext({
    ...values,
    MIN: (all: readonly number[]) => Math.min(...all),
    MAX: (all: readonly number[]) => Math.max(...all),
    FILL: (value: number | null, otherwise: number) => value ?? otherwise,
  });
  return new Script(expression).runInContext(context) as number;
}

const TARGET_S = 300;

test.each([
  ['an hour of one job is for one worker', { backlog: 3_600, waiting: 1, running: 0, n0: null, n1: null }, TARGET_S],
  ['an hour of many jobs asks for twelve times the workers', { backlog: 3_600, waiting: 100, running: 0, n0: 1, n1: null }, 12 * TARGET_S],
  ['workers of all services share it', { backlog: 3_600, waiting: 100, running: 0, n0: 3, n1: 9 }, TARGET_S],
  ['what runs counts', { backlog: 600, waiting: 0, running: 2, n0: 2, n1: 0 }, TARGET_S],
  ['nothing is nothing', { backlog: 0, waiting: 0, running: 0, n0: 2, n1: 0 }, 0],
])('%s', (_, values, each) => {
  expect(valueOf(perWorker('backlog', 'waiting + running', ['n0', 'n1'], TARGET_S), values)).toBe(each);
});
