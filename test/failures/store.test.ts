/** KV.md 7, the store and the machine: what runs out, expires or is denied ends a run with a code, and loses nothing that was committed. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, expect, test } from 'vitest';

import { openFilesystemStore } from '../../engine/adapters/filesystem.ts';
import { MemoryStore } from '../../engine/adapters/memory.ts';
import { EngineError } from '../../engine/core/errors.ts';
import { readJob } from '../../engine/kv/create.ts';
import { HastyClock } from '../helpers/clock.ts';
import { ROOT } from '../helpers/setup.ts';
import { begin, errorOf, expectUndisturbed, park, resume, WHERE } from './support.ts';

const folders: string[] = [];
function scratch(): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'ruminate-failures-'));
  folders.push(folder);
  return folder;
}
afterEach(() => { for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true }); });

test.each([
  ['ERR_STORE_CONFIG', 'credentials that expire'],
  ['ERR_STORE', 'a store that fails for good'],
] as const)('%s: %s in the middle of an upload end the run with that code, and the job goes on when they are back', async (code, _) => {
  for (const nth of [1, 4, 9]) {
    let puts = 0;
    let denied = true;
    const store = new MemoryStore({ before: ({ kind }) => { if (denied && kind === 'put' && puts++ >= nth + 4) throw new EngineError(code, 's3://…: as planned.'); } });
    const error = await errorOf(begin({ store, clock: new HastyClock(7_000) }));
    // Where the head was being swapped nobody knows whether it was: that is ERR_STORE, whatever the cause.
    expect([code, 'ERR_STORE']).toContain(error.code);
    denied = false;
    await expectUndisturbed(await resume({ store }));
  }
});

test('a full disk in the middle of a job ends the run with ERR_STORE, and the job goes on when there is room', async ({ skip }) => {
  const root = scratch();
  if (spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=200k', 'tmpfs', root]).status !== 0) return skip('needs the right to mount a tmpfs');
  try {
    const store = await openFilesystemStore(root);
    expect(await errorOf(begin({ store }))).toMatchObject({ code: 'ERR_STORE', message: expect.stringContaining('disk is full') as string });
    const { head, manifest } = await readJob(store, WHERE);
    // Letting go takes room for one head more, which there may not be.
    expect(['running', 'parked']).toContain(head.state);
    expect(manifest).not.toBeNull();
    expect(spawnSync('mount', ['-o', 'remount,size=8m', root]).status).toBe(0);
    const { resumed } = await expectUndisturbed(await resume({ store }));
    expect(resumed).toMatchObject([{ outcome: 'restored' }]);
  } finally {
    spawnSync('umount', [root]);
  }
});

test('a process that has run out of file descriptors says so, and writes again when it has some', () => {
  const child = path.join(ROOT, 'test', 'failures', 'descriptors.ts');
  const { status, stdout, stderr } = spawnSync('bash', ['-c', `ulimit -n 64 && exec "${process.execPath}" --import tsx "${child}" "${scratch()}"`], { cwd: ROOT, encoding: 'utf8' });
  expect([status, stdout], stderr).toEqual([0, 'ERR_STORE ulimit\nwritten\nbefore\nafter\n']);
});

test('a storm of failures that passes is waited out within the deadline, and one that does not ends at it', async () => {
  const clock = new HastyClock(7_000);
  let refusals = 0;
  const store = new MemoryStore({ clock, faults: ({ condition }) => (condition === 'if_match' && refusals++ % 4 !== 3 ? { kind: 'refuse' } : null) });
  await expectUndisturbed(await begin({ store, clock }));
  expect(refusals).toBeGreaterThan(8);
  const [jam, jammed] = [new HastyClock(7_000), new MemoryStore({ faults: ({ condition }) => (condition === 'if_match' ? { kind: 'refuse' } : null) })];
  expect(await errorOf(begin({ store: jammed, clock: jam }))).toMatchObject({ code: 'ERR_STORE' });
  expect(jam.nowMs()).toBeLessThanOrEqual(60_000);
  expect(Math.max(...jam.pausesMs)).toBeLessThanOrEqual(5_000);
});

test('a store that vanishes under a parked job and comes back changes nothing', async () => {
  let gone = false;
  const store = new MemoryStore({ before: () => { if (gone) throw new EngineError('ERR_STORE', 'gone'); } });
  await park({ store });
  gone = true;
  expect(await errorOf(resume({ store }))).toMatchObject({ code: 'ERR_STORE' });
  gone = false;
  await expectUndisturbed(await resume({ store }));
});
