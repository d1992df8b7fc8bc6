/** Any number together, or one alone; nobody waits for who has given up. */
import { expect, test } from 'vitest';

import { Company } from '../../engine/worker/company.ts';
import { ManualClock } from '../helpers/clock.ts';

const settled = async (promise: Promise<unknown>): Promise<boolean> => {
  let isSettled = false;
  promise.then(() => { isSettled = true; }, () => { isSettled = true; });
  await new ManualClock().settle();
  return isSettled;
};

test('who is to be alone waits for the others, and the others for it', async () => {
  const company = new Company(new ManualClock());
  const first = await company.enter(false, undefined);
  const second = await company.enter(false, undefined);
  const alone = company.enter(true, undefined);
  const third = company.enter(false, undefined);
  first[Symbol.dispose]();
  first[Symbol.dispose]();
  expect([await settled(alone), await settled(third)]).toEqual([false, false]);
  second[Symbol.dispose]();
  expect([await settled(alone), await settled(third)]).toEqual([true, false]);
  (await alone)[Symbol.dispose]();
  expect(await settled(third)).toBe(true);
});

test('two that are to be alone are so one after the other', async () => {
  const company = new Company(new ManualClock());
  const first = await company.enter(true, undefined);
  const second = company.enter(true, undefined);
  expect(await settled(second)).toBe(false);
  first[Symbol.dispose]();
  expect(await settled(second)).toBe(true);
});

test('one that gives up waiting to be alone lets the others in', async () => {
  const company = new Company(new ManualClock());
  const stop = new AbortController();
  await company.enter(false, undefined);
  const alone = company.enter(true, stop.signal);
  const other = company.enter(false, undefined);
  expect(await settled(other)).toBe(false);
  stop.abort();
  await expect(alone).rejects.toMatchObject({ code: 'ERR_CANCELLED' });
  expect(await settled(other)).toBe(true);
});

test('one that need not be alone any more lets the others in, and who is to be alone waits for it as for any other', async () => {
  const company = new Company(new ManualClock());
  const first = await company.enter(true, undefined);
  expect([company.isOpen, await settled(company.opened(undefined))]).toEqual([false, false]);
  const [opened, second, alone] = [company.opened(undefined), company.enter(false, undefined), company.enter(true, undefined)];
  first.letIn();
  first.letIn();
  // It has waited longer than the others.
  expect([await settled(opened), await settled(second), await settled(alone)]).toEqual([false, false, false]);
  first[Symbol.dispose]();
  expect(await settled(alone)).toBe(true);
  (await alone).letIn();
  expect([company.isOpen, await settled(opened), await settled(second)]).toEqual([true, true, true]);
});
