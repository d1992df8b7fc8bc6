/** Whose something is, and whether its process still lives: known of this machine's own processes, and of no other's. */
import { hostname } from 'node:os';
import { expect, test } from 'vitest';

import { NOBODY, isOwnerGone, isOwnerHere, ownerHint, stateOf, thisOwner } from '../../engine/core/owner.ts';

const [pid = '', start = '', space = ''] = thisOwner().split('-');
const host = ownerHint().split('@')[1];
/** What another kernel of the same image would have drawn. */
const otherBoot = `${space.slice(0, -1)}${(Number(space.at(-1)) + 1) % 10}`;

test('a process of this machine lives, or is dead when another has its number', () => {
  expect(stateOf(thisOwner())).toBe('alive');
  expect(stateOf(`${pid}-${Number(start) + 1}-${space}`)).toBe('dead');
  expect(stateOf(`4194305-1-${space}`)).toBe('dead');
  expect(stateOf(NOBODY)).toBe('dead');
  expect(isOwnerGone(`${pid}-${Number(start) + 1}-${space}@${host}`)).toBe(true);
});

test.runIf(process.platform === 'linux')('a process of another machine with the same name, namespace and numbers is not taken for dead', () => {
  expect(hostname()).not.toBe('');
  expect(space.length).toBeGreaterThan(15);
  for (const owner of [`${pid}-${start}-${otherBoot}`, `4194303-1-${otherBoot}`]) {
    expect(stateOf(owner)).toBe('foreign');
    expect(isOwnerGone(`${owner}@${host}`)).toBe(false);
    expect(isOwnerHere(`${owner}@${host}`)).toBe(false);
  }
});

test('a head can name it', () => {
  expect(`${'9'.repeat(7)}-${'9'.repeat(12)}-${space}@${'h'.repeat(64)}`.length).toBeLessThanOrEqual(112);
});
