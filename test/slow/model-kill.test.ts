/** Pulls as processes that are killed, and processes that meet: the cache is right whatever happens, and nothing is fetched twice. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { openModelSource, openModelStore } from '../../engine/adapters/model-source.ts';
import { seededRandom } from '../../engine/adapters/memory-faults.ts';
import { openStore } from '../../engine/adapters/store-url.ts';
import { LIMITS } from '../../engine/core/limits.ts';
import { statOf } from '../../engine/core/disk.ts';
import { prune } from '../../engine/model/evict.ts';
import type { PullTiming } from '../../engine/model/pull.ts';
import { push } from '../../engine/model/push.ts';
import { COUNTDOWN, cacheIn, contentOf, folder, pullOnce, removeFolders, wrongBlobs } from '../helpers/models.ts';
import { ROOT } from '../helpers/setup.ts';

const RANGE = 64 << 10;
let url: string;
beforeAll(async () => {
  const root = folder();
  await push(COUNTDOWN, await openStore(root));
  url = `file:${root}/countdown`;
});
afterAll(removeFolders);

interface Child {
  readonly process: ChildProcess;
  /** Bytes of the ranges that came so far. */
  bytes(): number;
  /** After so many ranges. */
  after(parts: number): Promise<void>;
  /** null: it was killed. */
  readonly ended: Promise<{ readonly timing: PullTiming; readonly directory: string } | null>;
}

function pulling(root: string, pauseMs: number, mode = ''): Child {
  const child = spawn(process.execPath, ['--import', 'tsx', path.join(ROOT, 'test', 'helpers', 'pull-child.ts'), root, url, String(RANGE), String(pauseMs), mode], { cwd: ROOT, stdio: ['ignore', 'pipe', 'inherit'] });
  let parts = 0;
  let bytes = 0;
  let result: string | null = null;
  let look = () => {};
  const lines = createInterface({ input: child.stdout });
  lines.on('line', (line) => {
    if (line.startsWith('part ')) {
      parts += 1;
      bytes += Number(line.slice(5));
    }
    if (line.startsWith('{')) result = line;
    look();
  });
  const closed = once(lines, 'close').then(() => look());
  const until = (holds: () => boolean) => new Promise<void>((resolve) => {
    const before = look;
    look = () => {
      before();
      if (holds()) resolve();
    };
    look();
  });
  return {
    process: child,
    bytes: () => bytes,
    after: (wanted) => Promise.race([until(() => parts >= wanted || result !== null), closed]),
    ended: (mode === 'hold' ? Promise.race([until(() => result !== null), closed]) : closed).then(() => (result === null ? null : JSON.parse(result))),
  };
}

test('kill -9 at random moments, again and again, then a pull: never a wrong file, and only the rest is fetched', async () => {
  const random = seededRandom(20_251_125);
  const root = folder();
  const cache = cacheIn(root);
  let fetched = 0;
  for (let kill = 0; kill < 8; kill++) {
    const ranges = Math.floor(8 + random() * 24);
    // However late the kill comes, there is something left.
    const child = pulling(root, 15, `${ranges + 4}`);
    await child.after(ranges);
    child.process.kill('SIGKILL');
    await child.ended;
    fetched += child.bytes();
    expect(wrongBlobs(cache)).toEqual([]);
  }
  const { directory, timing } = await pullOnce(cache, await openModelSource(url), { rangeBytes: RANGE });
  expect(timing.fetched_bytes).toBeGreaterThan(0);
  const [there, here] = [contentOf(COUNTDOWN), contentOf(directory)];
  for (const [name, content] of here) if (name.includes('/')) expect(content.equals(there.get(name) ?? Buffer.alloc(0)), name).toBe(true);
  // What a kill may lose: the ranges in flight, and those that had come and were not on record yet.
  const unique = [...new Map([...here].filter(([name]) => name.includes('/')).map(([, content]) => [content.toString('base64'), content.length])).values()].reduce((sum, bytes) => sum + bytes, 0);
  const lostMax = 8 * (LIMITS.RANGES_IN_FLIGHT + 1) * RANGE;
  expect(fetched).toBeGreaterThan(lostMax);
  expect(timing.fetched_bytes).toBeLessThanOrEqual(unique - (fetched - lostMax));
}, 240_000);

test('two processes that pull the same at once fetch it once between them', async () => {
  const root = folder();
  const children = [pulling(root, 10), pulling(root, 10)];
  const [first, second] = await Promise.all(children.map(({ ended }) => ended));
  expect(first?.directory).toBe(second?.directory);
  const { timing } = await pullOnce(cacheIn(folder()), await openModelSource(url));
  expect((first?.timing.fetched_bytes ?? 0) + (second?.timing.fetched_bytes ?? 0)).toBe(timing.fetched_bytes);
  expect(wrongBlobs(cacheIn(root))).toEqual([]);
}, 120_000);

test('when the process that fetches is killed, the one that waits goes on with its part', async () => {
  const root = folder();
  const first = pulling(root, 40);
  await first.after(12);
  const second = pulling(root, 0);
  await second.after(1);
  first.process.kill('SIGKILL');
  const ended = await second.ended;
  expect(ended).not.toBeNull();
  expect(wrongBlobs(cacheIn(root))).toEqual([]);
  expect(ended?.timing.fetched_bytes).toBeLessThan(ended?.timing.bytes ?? 0);
}, 120_000);

describe('eviction', () => {
  test('leaves alone what a living process has pinned, and takes it when that was killed', async () => {
    const root = folder();
    const cache = cacheIn(root);
    const holder = pulling(root, 0, 'hold');
    const directory = (await holder.ended)?.directory ?? '';
    expect((await prune(cache, 0)).models).toEqual([]);
    expect((await statOf(path.join(directory, 'cr8', 'model.safetensors')))?.isFile).toBe(true);
    holder.process.kill('SIGKILL');
    await once(holder.process, 'exit');
    expect((await prune(cache, 0)).models).toHaveLength(1);
    expect(await statOf(directory)).toBeNull();
    expect([...contentOf(path.join(cache.root, 'blobs', 'sha256')).keys()]).toEqual([]);
  }, 60_000);
});

test('a store address names its last part', async () => {
  expect((await openModelStore(url)).name).toBe('countdown');
});
