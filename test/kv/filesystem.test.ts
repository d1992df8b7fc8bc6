import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, expect, test } from 'vitest';

import { openFilesystemStore } from '../../engine/adapters/filesystem.ts';
import { readJob } from '../../engine/kv/create.ts';
import { eraseJob } from '../../engine/kv/erase.ts';
import { collectGarbage } from '../../engine/kv/gc.ts';
import { takeJob } from '../../engine/kv/take.ts';
import { code, commitSteps, createdJob, onTop, step, stepsOf, WHERE } from './support.ts';

const folder = mkdtempSync(path.join(tmpdir(), 'kv-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test('on a real disk, with two stores as two processes have them: commits, a takeover, collections and an erasure', async () => {
  const [here, there] = [await openFilesystemStore(folder), await openFilesystemStore(folder)];
  await createdJob(here);
  const first = await takeJob(here, WHERE, { owner: 'first' });
  await commitSteps(first, 0, 1);
  await Promise.all([commitSteps(first, 2), first.flushJournal(step(3)), collectGarbage(there, WHERE), collectGarbage(here, WHERE)]);
  const second = await takeJob(there, WHERE, { owner: 'second', force: true });
  await expect(first.flushJournal(step(4))).rejects.toMatchObject(code('ERR_FENCED'));
  expect(await stepsOf(second)).toEqual([0, 1, 2, 3]);
  await second.commit({ state: 'done', manifest: onTop(second), objects: [step(4)] });
  await collectGarbage(here, WHERE);
  const { head, manifest } = await readJob(here, WHERE);
  expect({ state: head.state, objects: manifest?.objects.length, journal: head.journal.length }).toEqual({ state: 'done', objects: 5, journal: 0 });
  await eraseJob(here, WHERE);
  const keys = [];
  for await (const { key } of there.list('kv/')) keys.push(key);
  expect(keys).toEqual(['kv/acme/sums/HEAD']);
});
