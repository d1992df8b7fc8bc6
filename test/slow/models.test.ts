/** `ruminate models` as a user has it: real processes, a store in a folder, a cache of its own. */
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import type { JobResult } from '../../engine/job/generate.ts';
import { startHub } from '../helpers/hub-server.ts';
import { COUNTDOWN, cacheIn, contentOf, folder, removeFolders, wrongBlobs } from '../helpers/models.ts';
import { ROOT } from '../helpers/setup.ts';

const BIN = path.join(ROOT, 'bin', 'ruminate.mjs');
const SPEC = ['run', '4 20 8 13 target 59', '--length', '48', '--width', '2', '--seed', '7', '--json'];

let store: string;
beforeAll(() => {
  store = folder();
  ruminate(['models', 'push', COUNTDOWN, store], folder());
}, 300_000);
afterAll(removeFolders);

function ruminate(args: readonly string[], cache: string, env: Record<string, string> = {}): { status: number | null; stdout: string; stderr: string } {
  const { status, stdout, stderr } = spawnSync(process.execPath, [BIN, ...args], { cwd: cache, encoding: 'utf8', env: { ...process.env, RUMINATE_CACHE: cache, ...env } });
  return { status, stdout, stderr };
}

/** All of a result that is a function of the spec. */
function answerOf(stdout: string): Omit<JobResult, 'timing'> {
  const { timing: _, ...result } = JSON.parse(stdout) as JobResult;
  return result;
}

describe('help', () => {
  test.each(['pull', 'push', 'ls', 'rm', 'verify', 'prune'])('of models %s has an example', (name) => {
    const { status, stdout } = ruminate(['models', name, '--help'], folder());
    expect(status).toBe(0);
    expect(stdout).toMatch(/^Usage: ruminate models/);
    expect(stdout).toMatch(/Examples?:\n {2}\$ /);
  });
});

describe('run on an empty machine', () => {
  test.each([[[]], [['--cr', '2']]])('a model of a store gives what the bundled one gives, %j', (more) => {
    const cache = folder();
    const bundled = ruminate([...SPEC, ...more], cache);
    const fetched = ruminate([...SPEC, ...more, '--model', `file:${store}/countdown`], cache);
    expect([fetched.status, fetched.stderr]).toEqual([0, '']);
    expect(answerOf(fetched.stdout)).toEqual(answerOf(bundled.stdout));
    const { model } = (JSON.parse(fetched.stdout) as JobResult).timing;
    expect(model?.fetched_bytes).toBe(model?.bytes);
    const again = JSON.parse(ruminate([...SPEC, ...more, '--model', `file:${store}/countdown`], cache).stdout) as JobResult;
    expect(again.timing.model?.fetched_bytes).toBe(0);
  });

  test('a person sees the files come', () => {
    const { stderr, stdout } = ruminate([...SPEC.slice(0, -1), '--model', `file:${store}/countdown@dense`], folder());
    // Files come side by side: which is whole last is not said.
    expect(stderr).toMatch(/^fetching file:.*\n(.*\n)*dense\/model\.safetensors: 3\.1 MiB\n(.*\n)*loading /);
    expect(stdout).toMatch(/model +3\.1 MiB fetched in \d+ m?s, resolve .*verify .*map .*warm /);
  });

  test('a name that is not here is looked for in RUMINATE_MODELS_STORE', () => {
    const named = folder();
    ruminate(['models', 'push', COUNTDOWN, named, '--name', 'puzzles'], folder());
    const cache = folder();
    expect(ruminate([...SPEC, '--model', 'puzzles'], cache).stderr).toMatch(/ERR_MODEL_NOT_FOUND/);
    const { stdout } = ruminate([...SPEC, '--model', 'puzzles@cr4'], cache, { RUMINATE_MODELS_STORE: named });
    expect(answerOf(stdout)).toEqual(answerOf(ruminate([...SPEC, '--cr', '4'], cache).stdout));
  });

  test('a pulled model runs by its name, without its source', () => {
    const cache = folder();
    const moved = folder();
    ruminate(['models', 'push', COUNTDOWN, moved], cache);
    expect(ruminate(['models', 'pull', `file:${moved}/countdown`, '--name', 'mine', '--json'], cache).status).toBe(0);
    for (const name of readdirSync(moved)) spawnSync('rm', ['-rf', path.join(moved, name)]);
    expect(answerOf(ruminate([...SPEC, '--model', 'mine'], cache).stdout)).toEqual(answerOf(ruminate(SPEC, cache).stdout));
    expect(ruminate(['model', 'ls'], cache).stdout).toMatch(/^mine@cr8 +8\.0x/m);
  });
});

describe('models', () => {
  test('pull, ls, rm: what came is listed, and gone when removed', () => {
    const cache = folder();
    const pulled = ruminate(['models', 'pull', `file:${store}/countdown`], cache);
    expect(pulled.status).toBe(0);
    expect(pulled.stdout).toMatch(/^countdown: 12\.3 MiB, 12\.3 MiB of them fetched .*\ncountdown is also in .*models, which comes first/);
    expect(ruminate(['models', 'ls'], cache).stdout).toMatch(/countdown +dense \(1\.0x\), cr2 .*12\.3 MiB +\w{16} +Apache-2\.0 +file:/);
    const [row] = JSON.parse(ruminate(['models', 'ls', '--json'], cache).stdout) as { name: string; variants: unknown[] }[];
    expect([row?.name, row?.variants.length]).toEqual(['countdown', 4]);
    expect(ruminate(['models', 'ls', store], cache).stdout).toMatch(/countdown +dense/);
    expect(ruminate(['models', 'verify'], cache).stdout).toMatch(/files read, 0 wrong/);
    expect(ruminate(['models', 'rm', 'countdown'], cache).stdout).toMatch(/^countdown removed, 12\.3 MiB freed/);
    expect(ruminate(['models', 'ls', '--json'], cache).stdout).toBe('[]\n');
  });

  test('prune fits the cache into so many bytes', () => {
    const cache = folder();
    ruminate(['models', 'pull', `file:${store}/countdown`], cache);
    expect(JSON.parse(ruminate(['models', 'prune', '--bytes', '20000000', '--json'], cache).stdout)).toEqual({ models: [], bytes: 0 });
    expect(JSON.parse(ruminate(['models', 'prune', '--bytes', '0', '--json'], cache).stdout)).toMatchObject({ models: ['countdown'] });
  });

  test('RUMINATE_CACHE_BYTES bounds the cache', () => {
    const { status, stderr } = ruminate(['models', 'pull', `file:${store}/countdown`], folder(), { RUMINATE_CACHE_BYTES: '1000000' });
    expect([status, stderr.includes('ERR_MODEL_CACHE')]).toEqual([1, true]);
  });

  test('pull from a hub, by HF_ENDPOINT', async () => {
    const files = new Map([...contentOf(path.join(COUNTDOWN, 'cr8'))].map(([name, content]) => [name, { content, lfs: name === 'model.safetensors' }]));
    await using hub = await startHub({ repo: 'acme/dms', files });
    const cache = folder();
    const { status, stdout } = await spawned(['models', 'pull', 'hf:acme/dms', '--name', 'dms'], cache, { HF_ENDPOINT: hub.endpoint });
    expect([status, stdout]).toEqual([0, expect.stringMatching(/^dms: 3\.1 MiB, 3\.1 MiB of them fetched/)]);
    expect(ruminate([...SPEC, '--model', 'dms', '--vote', 'none'], cache).status).toBe(0);
  });

  const mistakes: readonly (readonly [string, readonly string[], number, string])[] = [
    ['no such model in a store', ['models', 'pull', 'file:/nowhere/at/all'], 1, 'ERR_MODEL_NOT_FOUND'],
    ['a scheme that is not known', ['models', 'pull', 'ftp://x/y'], 2, 'ERR_STORE_CONFIG'],
    ['a store that is not there', ['models', 'ls', './nowhere/at/all'], 2, 'ERR_STORE_CONFIG'],
    ['a name that is none', ['models', 'pull', COUNTDOWN, '--name', '../x'], 2, 'ERR_OPTION'],
    ['a hub reference that is none', ['models', 'pull', 'hf:x'], 1, 'ERR_MODEL_NOT_FOUND'],
    ['a directory without a model', ['models', 'push', ROOT, '/tmp/never'], 1, 'ERR_MODEL_NOT_FOUND'],
    ['a model that is not in the cache', ['models', 'rm', 'nobody'], 1, 'ERR_MODEL_NOT_FOUND'],
    ['a negative size', ['models', 'prune', '--bytes', '-1'], 2, 'ERR_OPTION'],
    ['a size that is none', ['models', 'ls'], 2, 'ERR_OPTION'],
  ];
  test.each(mistakes)('%s: one line with its code', (what, args, status, code) => {
    const ended = ruminate(args, folder(), what === 'a size that is none' ? { RUMINATE_CACHE_BYTES: 'much' } : {});
    expect([ended.status, ended.stdout]).toEqual([status, '']);
    expect(ended.stderr).toMatch(new RegExp(`(^|\\n)ruminate: ${code}: [^\\n]+\\n$`));
    expect(ended.stderr).not.toMatch(/\n\s+at /);
  });
});

describe('Ctrl-C', () => {
  test('ends a pull with 130, and the next pull fetches the rest only', async () => {
    const weights = readFileSync(path.join(COUNTDOWN, 'cr8', 'model.safetensors'));
    const name = (i: number) => `model-0000${i}-of-00003.safetensors`;
    const files = new Map([1, 2, 3].map((i) => [name(i), { content: Buffer.concat([weights, Buffer.from([i])]), lfs: true }]));
    files.set('config.json', { content: Buffer.from('{}'), lfs: false });
    let healthy = false;
    let passed = 0;
    // The third file never comes, so that the pull cannot end before the signal.
    await using hub = await startHub({ repo: 'acme/large', files, fault: ({ origin }) => (!healthy && origin === 'cdn' && ++passed > 4 ? { kind: 'stall' } : null) });
    const cache = folder();
    const blobs = path.join(cache, 'ruminate', 'blobs', 'sha256');
    const wholes = () => (existsSync(blobs) ? readdirSync(blobs, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile()).length : 0);
    const ended = await spawned(['models', 'pull', 'hf:acme/large'], cache, { HF_ENDPOINT: hub.endpoint }, () => wholes() >= 2);
    expect(ended.status).toBe(130);
    expect(ended.stderr).toMatch(/stopping; what is here stays.*\n(.*\n)*ruminate: ERR_CANCELLED: .* goes on where it was/);
    expect(wrongBlobs(cacheIn(cache))).toEqual([]);
    const before = wholes();
    healthy = true;
    const asked = hub.requests.length;
    // It is no model, so it cannot be described; by then all of it has come.
    expect((await spawned(['models', 'pull', 'hf:acme/large'], cache, { HF_ENDPOINT: hub.endpoint })).stderr).toMatch(/ERR_MODEL_CONFIG/);
    const fetched = new Set(hub.requests.slice(asked).filter(({ path: file }) => file.includes('/resolve/')).map(({ path: file }) => file));
    expect(wholes()).toBe(4);
    expect(fetched.size).toBe(4 - before);
  });
});

/** As `ruminate`, beside this process; sends SIGINT when `cue` holds. */
function spawned(args: readonly string[], cache: string, env: Record<string, string> = {}, cue: () => boolean = () => false): Promise<{ status: number | null; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [BIN, ...args], { cwd: cache, env: { ...process.env, RUMINATE_CACHE: cache, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
    let [stdout, stderr] = ['', ''];
    child.stdout.on('data', (chunk) => (stdout += chunk));
    child.stderr.on('data', (chunk) => (stderr += chunk));
    const watch = setInterval(() => {
      if (!cue()) return;
      clearInterval(watch);
      child.kill('SIGINT');
    }, 5);
    child.on('close', (status) => {
      clearInterval(watch);
      resolve({ status, stdout, stderr });
    });
  });
}
