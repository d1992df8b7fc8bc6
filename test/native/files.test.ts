/** Calls of the file system in a row, as the store in a directory makes them: they stay below their root, and end at the first that fails. */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { getSystemErrorName } from 'node:util';
import { afterEach, beforeEach, expect, test } from 'vitest';

import { type FileStep, fileSteps } from '../../engine/runtime/native.ts';

let root: string;
let outside: string;
beforeEach(() => {
  [root, outside] = [mkdtempSync(path.join(tmpdir(), 'ruminate-files-')), mkdtempSync(path.join(tmpdir(), 'ruminate-outside-'))];
});
afterEach(() => [root, outside].forEach((folder) => rmSync(folder, { recursive: true, force: true })));

const BODY = Buffer.from('body');
const newest = (at: string): FileStep => ({ call: 'newest', path: at, offset: 0, bytes: 10, expected: null });

test('a path that is not plain is refused before anything is done', async () => {
  for (const bad of ['', '.', '..', 'a/../b', '/etc', 'a//b', 'a/', 'a\0b']) {
    for (const step of [{ call: 'mkdir', path: bad }, { call: 'write', path: bad, chunks: [BODY] }, { call: 'rename', path: 'a', to: bad }, newest(bad)] as const) {
      await expect(fileSteps(root, [{ call: 'mkdir', path: 'before' }, step]), JSON.stringify(bad)).rejects.toMatchObject({ code: 'ERR_INTERNAL' });
    }
  }
  expect(readdirSync(root)).toEqual([]);
});

test('the steps end at the first that fails, which is told; what was done stays', async () => {
  const outcome = await fileSteps(root, [{ call: 'mkdir', path: 'a' }, { call: 'write', path: 'a/1', chunks: [BODY, BODY] }, { call: 'write', path: 'a/1', chunks: [BODY] }, { call: 'mkdir', path: 'b' }]);
  expect([outcome.done, getSystemErrorName(-outcome.errno)]).toEqual([2, 'EEXIST']);
  expect(readdirSync(root)).toEqual(['a']);
  expect(readFileSync(path.join(root, 'a/1'), 'utf8')).toBe('bodybody');
  expect(await fileSteps(path.join(root, 'nowhere'), [{ call: 'folders', path: 'a' }])).toMatchObject({ done: 0, rootMissing: true });
});

test('a version other than the expected one ends them too, without an error', async () => {
  mkdirSync(path.join(root, 'x#', 'inc'), { recursive: true });
  for (const number of ['9', '10', '011', 'eleven']) writeFileSync(path.join(root, 'x#', 'inc', number), number);
  mkdirSync(path.join(root, 'x#', 'inc', '12'));
  const look = (expected: string): FileStep => ({ call: 'newest', path: 'x#', offset: 1, bytes: 10, expected });
  expect(await fileSteps(root, [look('inc/10'), look('inc/9'), { call: 'mkdir', path: 'b' }])).toMatchObject({
    done: 1, errno: 0, found: [{ incarnation: 'inc', number: 10, size: 2, bytes: new Uint8Array(Buffer.from('0')) }, { number: 10 }],
  });
  expect(await fileSteps(root, [newest('y#')])).toMatchObject({ done: 1, found: [null] });
  await fileSteps(root, [{ call: 'older', path: 'x#/inc', number: 10 }]);
  expect(readdirSync(path.join(root, 'x#', 'inc')).sort()).toEqual(['011', '10', '12', 'eleven']);
});

test('no symbolic link is followed, wherever it lies; one that is removed takes nothing with it', async () => {
  mkdirSync(path.join(outside, 'inc'));
  writeFileSync(path.join(outside, 'inc', '1'), 'secret');
  symlinkSync(outside, path.join(root, 'kv'));
  mkdirSync(path.join(root, 'x#'));
  symlinkSync(path.join(outside, 'inc'), path.join(root, 'x#', 'inc'));
  writeFileSync(path.join(root, 'own'), 'own');
  const through: readonly FileStep[] = [
    { call: 'folders', path: 'kv/a' }, { call: 'mkdir', path: 'kv/a' }, { call: 'write', path: 'kv/a', chunks: [BODY] }, { call: 'sync', path: 'kv' }, { call: 'rename', path: 'own', to: 'kv/own' },
    { call: 'rename', path: 'kv/inc', to: 'mine' }, { call: 'link', path: 'kv/inc/1', to: 'mine' }, { call: 'unlink', path: 'kv/inc/1' }, { call: 'remove', path: 'kv/inc' }, newest('kv'), newest('kv/b'),
    { call: 'older', path: 'kv/inc', number: 2 }, { call: 'list', path: 'kv' },
  ];
  for (const step of through) expect(getSystemErrorName(-(await fileSteps(root, [step])).errno), JSON.stringify(step)).toBe('ELOOP');
  // A link is no incarnation.
  expect(await fileSteps(root, [newest('x#')])).toMatchObject({ found: [null] });
  await fileSteps(root, [{ call: 'remove', path: 'x#' }, { call: 'remove', path: 'kv' }]);
  expect(readdirSync(root)).toEqual(['own']);
  expect(readFileSync(path.join(outside, 'inc', '1'), 'utf8')).toBe('secret');
});

test('every descriptor is given back', async ({ skip }) => {
  if (!existsSync('/proc/self/fd')) return skip('needs /proc');
  // Those of others come and go.
  const held = () => readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith(root);
    } catch {
      return false;
    }
  });
  const many: FileStep[] = Array.from({ length: 50 }, (_, i) => ({ call: 'folders', path: `a/${i}/b` }));
  for (let i = 0; i < 20; i++) await fileSteps(root, [...many, newest('a'), { call: 'mkdir', path: 'a' }]);
  expect(held()).toEqual([]);
});
