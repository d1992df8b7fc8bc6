/** Models in a real S3: pushed, listed, and run from a machine that has nothing. */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { peerPath } from '../../scripts/peers/build.mjs';
import type { JobResult } from '../../engine/job/generate.ts';
import { push } from '../../engine/model/push.ts';
import { StoreSource } from '../../engine/model/sources.ts';
import { COUNTDOWN, cacheIn, contentOf, folder, madeModel, pullOnce, removeFolders } from '../helpers/models.ts';
import type { S3Peer } from '../helpers/s3-peer.ts';
import { ROOT } from '../helpers/setup.ts';
import { startVersitygw } from '../helpers/versitygw.ts';

const binary = peerPath('versitygw');
const there = existsSync(binary);
if (!there) process.stdout.write('skipped: models on versitygw: `node scripts/peers/build.mjs versitygw` builds it\n');

describe.skipIf(!there)('models on versitygw', () => {
  let peer: S3Peer;
  beforeAll(async () => {
    peer = await startVersitygw(binary);
  });
  afterAll(async () => {
    await peer?.[Symbol.asyncDispose]();
    removeFolders();
  });

  test('there and back byte for byte, a second push sending nothing', async () => {
    const store = peer.store();
    expect((await push(COUNTDOWN, store)).uploaded_bytes).toBeGreaterThan(12_000_000);
    expect((await push(COUNTDOWN, store)).uploaded_bytes).toBe(0);
    const { directory } = await pullOnce(cacheIn(folder()), new StoreSource(store, 'countdown'), { rangeBytes: 1 << 20 });
    const there = contentOf(COUNTDOWN);
    for (const [name, content] of contentOf(directory)) if (name.includes('/')) expect(content.equals(there.get(name) ?? Buffer.alloc(0)), name).toBe(true);
  });

  test('of two contents pushed at once as one revision, one is refused', async () => {
    const store = peer.store();
    const ends = await Promise.allSettled(['1', '2'].map((text) => push(madeModel('m', { 'a.json': Buffer.from(text) }), store, { revision: 'v1' })));
    expect(ends.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
    expect(ends.find(({ status }) => status === 'rejected')).toMatchObject({ reason: { code: 'ERR_MODEL_CONFLICT' } });
  });

  test('`ruminate run --model s3://…` from an empty cache gives what the bundled model gives', async () => {
    const url = `s3://${peer.bucket}/models`;
    expect((await ruminate(['models', 'push', COUNTDOWN, url])).status).toBe(0);
    const spec = ['run', '4 20 8 13 target 59', '--length', '48', '--width', '2', '--seed', '7', '--json'];
    const [fetched, bundled] = [await ruminate([...spec, '--model', `${url}/countdown`]), await ruminate(spec)];
    expect(fetched.status, fetched.stderr).toBe(0);
    const { timing, ...result } = JSON.parse(fetched.stdout) as JobResult;
    const { timing: _, ...expected } = JSON.parse(bundled.stdout) as JobResult;
    expect(result).toEqual(expected);
    expect(timing.model?.fetched_bytes).toBe(timing.model?.bytes);
    expect(JSON.parse((await ruminate(['models', 'ls', url, '--json'])).stdout)).toMatchObject([{ name: 'countdown' }]);
  });

  /** Each with a cache of its own. */
  function ruminate(args: readonly string[]): Promise<{ status: number | null; stdout: string; stderr: string }> {
    return new Promise((resolve) => {
      const child = spawn(process.execPath, [path.join(ROOT, 'bin', 'ruminate.mjs'), ...args], { env: { ...process.env, ...peer.environment, RUMINATE_CACHE: folder() }, stdio: ['ignore', 'pipe', 'pipe'] });
      let [stdout, stderr] = ['', ''];
      child.stdout.on('data', (chunk) => (stdout += chunk));
      child.stderr.on('data', (chunk) => (stderr += chunk));
      child.on('close', (status) => resolve({ status, stdout, stderr }));
    });
  }
});
