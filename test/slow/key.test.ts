/** `ruminate key new` as a user has it: a real process. */
import { spawnSync } from 'node:child_process';
import { readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';

import { openKeyProvider } from '../../engine/adapters/key-url.ts';
import { expectNothingOf } from '../contract/key-provider.ts';
import { folder, removeFolders } from '../helpers/models.ts';
import { ROOT } from '../helpers/setup.ts';

function ruminate(args: readonly string[], cwd: string, key?: string): { readonly status: number | null; readonly stdout: string; readonly stderr: string } {
  const { status, stdout, stderr } = spawnSync(process.execPath, [path.join(ROOT, 'bin', 'ruminate.mjs'), ...args], {
    cwd, encoding: 'utf8', env: { ...process.env, ...(key === undefined ? {} : { RUMINATE_KEY: key }) },
  });
  return { status, stdout, stderr };
}

// In a fresh checkout the first run builds, and says so on stderr.
beforeAll(() => void ruminate(['--version'], folder()), 300_000);
afterAll(removeFolders);

test('a new key is made, is private, can be opened by the URL that is printed, and is not shown', async () => {
  const where = folder();
  const made = ruminate(['key', 'new', 'my key', '--json'], where);
  expect([made.status, made.stderr]).toEqual([0, '']);
  const { id, url } = JSON.parse(made.stdout) as { id: string; url: string };
  const file = path.join(where, 'my key');
  expect([statSync(file).size, statSync(file).mode & 0o777]).toEqual([32, 0o600]);
  expect((await openKeyProvider(url)).id).toBe(id);
  const told = ruminate(['key', 'new', 'second'], where);
  expect(told.stdout).toMatch(/^file:[0-9a-f]{16}\nto use it, set RUMINATE_KEY to file:\/.*\/second\n$/);
  expectNothingOf(readFileSync(path.join(where, 'second')), told.stdout);
});

test('a key that is there is not overwritten', () => {
  const where = folder();
  ruminate(['key', 'new', 'key'], where);
  const before = readFileSync(path.join(where, 'key'));
  const again = ruminate(['key', 'new', 'key'], where);
  expect([again.status, again.stdout]).toEqual([1, '']);
  expect(again.stderr).toMatch(/^ruminate: ERR_KEY: The key file key is there already.*\n$/);
  expect(readFileSync(path.join(where, 'key')).equals(before)).toBe(true);
});

test('a job that was run under a key is forked and read with it, and with no other and none is refused', () => {
  const where = folder();
  for (const name of ['key', 'other']) ruminate(['key', 'new', name], where);
  const run = ['run', '4 20 8 13 target 59', '--length', '48', '--width', '2', '--seed', '7', '--json'];
  const stored = ['--store', './jobs', '--json'];
  const answerOf = (text: string) => (JSON.parse(text) as { chains: unknown }).chains;
  const sealed = ruminate([...run, '--store', './jobs', '--job', 'sums'], where, 'file:key');
  expect([sealed.status, sealed.stderr]).toEqual([0, '']);
  expect(answerOf(sealed.stdout)).toEqual(answerOf(ruminate(run, where).stdout));
  expect(answerOf(ruminate(['resume', 'sums', ...stored], where, 'file:key').stdout)).toEqual(answerOf(sealed.stdout));
  for (const args of [['resume', 'sums', ...stored], ['fork', 'sums', '--at', '20', '--as', 'again', ...stored]]) {
    for (const key of ['file:other', undefined]) {
      const refused = ruminate(args, where, key);
      expect([refused.status, refused.stdout]).toEqual([1, '']);
      expect(refused.stderr).toMatch(/^ruminate: ERR_KEY: .*\n$/);
    }
  }
  // Chain 0 from the token where it was forked, with the same seed: the same again, from objects of its ancestor and its own.
  const forked = ruminate(['fork', 'sums', '--at', '20', '--width', '1', '--as', 'child', ...stored], where, 'file:key');
  expect([forked.status, forked.stderr]).toEqual([0, '']);
  expect((answerOf(forked.stdout) as { text: string }[])[0]?.text).toBe((answerOf(sealed.stdout) as { text: string }[])[0]?.text);
  expect(answerOf(ruminate(['resume', 'child', ...stored], where, 'file:key').stdout)).toEqual(answerOf(forked.stdout));
});

test('help has an example', () => {
  const { status, stdout } = ruminate(['key', 'new', '--help'], folder());
  expect(status).toBe(0);
  expect(stdout).toMatch(/Examples?:\n {2}\$ ruminate key new/);
});
