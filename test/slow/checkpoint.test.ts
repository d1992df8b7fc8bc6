/** `ruminate checkpoint` and `ruminate gc` as a user has them: real processes, a store in a folder. */
import { spawn, spawnSync } from 'node:child_process';
import { cpSync, existsSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { folder, removeFolders } from '../helpers/models.ts';
import { ROOT } from '../helpers/setup.ts';
import { keyFile } from '../helpers/stored-job.ts';

const BIN = path.join(ROOT, 'bin', 'ruminate.mjs');
const RUN = ['run', '4 20 8 13 target 59', '--cr', '2', '--length', '160', '--width', '2', '--seed', '7', '--checkpoint-tokens', '40', '--json'];

let original: string;
beforeAll(() => {
  original = folder();
  for (const job of ['sums', 'more']) expect(ruminate([...RUN, '--job', job], original).status).toBe(0);
}, 300_000);
afterAll(removeFolders);

/** A copy of its own for each test that writes. */
function fresh(): string {
  const store = folder();
  cpSync(original, store, { recursive: true });
  return store;
}

function ruminate(args: readonly string[], store: string, env: Record<string, string> = {}): { status: number | null; stdout: string; stderr: string; lines: () => Record<string, unknown>[] } {
  const { RUMINATE_KEY: _, ...rest } = process.env;
  const { status, stdout, stderr } = spawnSync(process.execPath, [BIN, ...args], { encoding: 'utf8', env: { ...rest, RUMINATE_STORE: store, ...env }, input: '', maxBuffer: 1 << 26 });
  return { status, stdout, stderr, lines: () => stdout.trim().split('\n').map((line) => JSON.parse(line) as Record<string, unknown>) };
}

/** The file that holds the newest version of a stored object of the job. */
function fileOf(store: string, job: string, suffix: RegExp): string {
  const all = readdirSync(path.join(store, 'kv', 'local', job), { recursive: true, encoding: 'utf8' }).map((name) => path.join(store, 'kv', 'local', job, name));
  const found = all.filter((file) => statSync(file).isFile() && suffix.test(file)).sort().at(-1);
  if (found === undefined) throw new Error(`no ${suffix} of ${job}`);
  return found;
}

function damage(file: string): void {
  const bytes = readFileSync(file);
  bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 1;
  rmSync(file);
  writeFileSync(file, bytes);
}

test.each([['checkpoint', 'ls'], ['checkpoint', 'inspect'], ['checkpoint', 'verify'], ['checkpoint', 'export'], ['checkpoint', 'import'], ['checkpoint', 'rm'], ['gc']])(
  'the help of %s %s has an example', (...name) => {
    const { status, stdout } = ruminate([...name, '--help'], original);
    expect(status).toBe(0);
    expect(stdout).toMatch(/Examples?:\n {2}\$ ruminate /);
  },
);

test.each([['checkpoint', 'ls'], ['checkpoint', 'inspect', 'sums'], ['checkpoint', 'verify', '--all'], ['checkpoint', 'export', 'sums', 'sums.tar'], ['checkpoint', 'rm', 'sums', '--yes'], ['gc', '--all'], ['resume', 'sums'], ['fork', 'sums', '--at', '1'], ['extend', 'sums', '--width', '+1']])(
  '%s %s of a folder that is not there is a mistake, and makes none', (...args) => {
    const store = path.join(original, 'elsewhere');
    expect(ruminate(args, store)).toMatchObject({ status: 2, stdout: '', stderr: `ruminate: ERR_STORE_CONFIG: The store ${JSON.stringify(store)} does not exist.\n` });
    expect(existsSync(store)).toBe(false);
  },
);

test('a command on S3 says nothing but what it has to say', async () => {
  const server = createServer((_, answer) => answer.writeHead(403, { 'content-type': 'application/xml' }).end('<Error><Code>InvalidAccessKeyId</Code><Message>no</Message></Error>'));
  await once(server.listen(0, '127.0.0.1'), 'listening');
  try {
    const env = {
      RUMINATE_STORE: 's3://kv-bucket/jobs', RUMINATE_S3_ENDPOINT: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, RUMINATE_S3_PATH_STYLE: '1',
      AWS_ACCESS_KEY_ID: 'a', AWS_SECRET_ACCESS_KEY: 'b', AWS_REGION: 'us-east-1',
    };
    const child = spawn(process.execPath, [BIN, 'checkpoint', 'ls'], { env: { ...process.env, ...env }, stdio: ['ignore', 'ignore', 'pipe'] });
    let said = '';
    child.stderr.on('data', (chunk: Buffer) => { said += chunk.toString(); });
    await once(child, 'close');
    expect(said).toMatch(/^ruminate: ERR_STORE_CONFIG: .*\n$/);
  } finally {
    server.close();
  }
});

describe('ls', () => {
  test('shows each job and what all of them cost', () => {
    const { status, stdout } = ruminate(['checkpoint', 'ls', '--price-per-gb-month', '1000000'.slice(0, 6)], original);
    expect(status).toBe(0);
    expect(stdout).toMatch(/^job +state +model +tokens +width +stored +written +a month\nmore +done +countdown\S* +\d+ +2 .* ago +\$\d/);
    expect(stdout).toMatch(/\n2 jobs, .*: \$\d+\.\d\d a month at 100000 \$\/GB/);
  });

  test('as JSON: an object a line, and a total that is their sum', () => {
    const lines = ruminate(['checkpoint', 'ls', '--json'], original).lines();
    const { total } = lines.pop() as { total: { jobs: number; bytes: number; usd_month: number; next: null } };
    expect(lines.map(({ job }) => job)).toEqual(['more', 'sums']);
    expect(total.bytes).toBe(lines.reduce((sum, { bytes }) => sum + (bytes as number), 0));
    expect(total.usd_month).toBeCloseTo((total.bytes / 2 ** 30) * 0.023, 15);
  });

  test('in pages', () => {
    const first = ruminate(['checkpoint', 'ls', '--limit', '1'], original).stdout;
    expect(first).toMatch(/^more: --after more$/m);
    expect(ruminate(['checkpoint', 'ls', '--after', 'more', '--json'], original).lines().map(({ job }) => job)).toEqual(['sums', undefined]);
    expect(ruminate(['checkpoint', 'ls', '--limit', '0'], original)).toMatchObject({ status: 2, stderr: expect.stringMatching(/^ruminate: ERR_OPTION: /) as string });
  });

  test('a damaged head is a row, not an end', () => {
    const store = fresh();
    damage(fileOf(store, 'more', /HEAD/));
    const { status, stdout } = ruminate(['checkpoint', 'ls'], store);
    expect(status).toBe(0);
    expect(stdout).toMatch(/\nmore +unreadable .*\n {2}damaged: .*\nsums +done /);
  });

  test('a store with nothing, and none', () => {
    expect(ruminate(['checkpoint', 'ls'], folder()).stdout).toMatch(/^none\n0 jobs/);
    expect(ruminate(['checkpoint', 'ls'], '')).toMatchObject({ status: 2, stderr: expect.stringMatching(/^ruminate: ERR_OPTION: .*--store/) as string });
  });
});

test('inspect shows chains, cuts and identities', () => {
  const { stdout } = ruminate(['checkpoint', 'inspect', 'sums'], original);
  expect(stdout).toMatch(/chain 0 +━+●/);
  expect(stdout).toMatch(/a fork can begin at \d+/);
  expect(stdout).toMatch(/^layoutId +[0-9a-f]{32}$/m);
  const { manifest } = JSON.parse(ruminate(['checkpoint', 'inspect', 'sums', '--json'], original).stdout) as { manifest: { chains: unknown[] } };
  expect(manifest.chains).toHaveLength(2);
  expect(ruminate(['checkpoint', 'inspect', 'none'], original)).toMatchObject({ status: 1, stderr: expect.stringMatching(/^ruminate: ERR_JOB_NOT_FOUND: /) as string });
});

describe('verify', () => {
  test('is 0 if every byte is right, and 1 with the reason if one is not', () => {
    const store = fresh();
    expect(ruminate(['checkpoint', 'verify', '--all'], store)).toMatchObject({ status: 0, stdout: expect.stringMatching(/^more: right, .*\nsums: right, /) as string });
    damage(fileOf(store, 'sums', /\.tail/));
    const { status, stdout } = ruminate(['checkpoint', 'verify', '--all'], store);
    expect(status).toBe(1);
    expect(stdout).toMatch(/^more: right, .*\nsums: 1 fault, .*\n {2}t\/\S+\.tail: damaged: /);
    const report = ruminate(['checkpoint', 'verify', 'sums', '--json'], store);
    expect(report.status).toBe(1);
    expect(report.lines()).toMatchObject([{ job: 'sums', right: false, faults: [{ reason: 'damaged' }] }]);
  });

  test('names one job or all', () => {
    expect(ruminate(['checkpoint', 'verify'], original).status).toBe(2);
    expect(ruminate(['checkpoint', 'verify', 'sums', '--all'], original).status).toBe(2);
  });
});

describe('export and import', () => {
  test('a job goes through a file or a pipe to another store', () => {
    const file = path.join(folder(), 'sums.tar');
    const there = folder();
    expect(ruminate(['checkpoint', 'export', 'sums', file], original).status).toBe(0);
    const piped = spawnSync(process.execPath, [BIN, 'checkpoint', 'export', 'sums', '-'], { env: { ...process.env, RUMINATE_STORE: original }, maxBuffer: 1 << 26 });
    expect(readFileSync(file).equals(piped.stdout)).toBe(true);
    expect(ruminate(['checkpoint', 'import', file, '--json'], there).lines()).toMatchObject([{ job: 'sums', state: 'done', complete: true }]);
    expect(ruminate(['checkpoint', 'import', file, '--as', 'again'], there).status).toBe(0);
    expect(ruminate(['checkpoint', 'verify', '--all'], there)).toMatchObject({ status: 0, stdout: expect.stringMatching(/^again: right.*\nsums: right/) as string });
    expect(ruminate(['checkpoint', 'import', file], there)).toMatchObject({ status: 1, stderr: expect.stringMatching(/^ruminate: ERR_JOB_CONFLICT: /) as string });
  });

  test('a file that is there is not overwritten, and one that could not be finished is not there', () => {
    const file = path.join(folder(), 'sums.tar');
    writeFileSync(file, 'mine');
    expect(ruminate(['checkpoint', 'export', 'sums', file], original).status).toBe(2);
    expect(readFileSync(file, 'utf8')).toBe('mine');
    const store = fresh();
    damage(fileOf(store, 'sums', /\.tail/));
    const target = folder();
    expect(ruminate(['checkpoint', 'export', 'sums', path.join(target, 'sums.tar')], store)).toMatchObject({ status: 1, stderr: expect.stringMatching(/^ruminate: ERR_CHECKPOINT: damaged: /) as string });
    expect(readdirSync(target)).toEqual([]);
    expect(ruminate(['checkpoint', 'export', 'sums', path.join(target, 'none', 'x.tar')], original).stderr).toMatch(/^ruminate: ERR_OUTPUT: /);
  });

  test('what is no export is ERR_CHECKPOINT and leaves nothing', () => {
    const store = folder();
    expect(ruminate(['checkpoint', 'import', path.join(ROOT, 'package.json')], store)).toMatchObject({ status: 1, stderr: expect.stringMatching(/^ruminate: ERR_CHECKPOINT: /) as string });
    expect(ruminate(['checkpoint', 'ls'], store).stdout).toMatch(/^none/);
    expect(ruminate(['checkpoint', 'import', path.join(store, 'none.tar')], store).status).toBe(2);
  });
});

test('rm erases for good, and asks nobody who is not there', () => {
  const store = fresh();
  expect(ruminate(['checkpoint', 'rm', 'sums'], store)).toMatchObject({ status: 2, stderr: expect.stringMatching(/--yes/) as string });
  expect(ruminate(['checkpoint', 'rm', 'sums', '--yes', '--json'], store).lines()).toMatchObject([{ job: 'sums', state: 'erased' }]);
  expect(ruminate(['checkpoint', 'ls', '--json'], store).lines().map(({ job }) => job)).toEqual(['more', undefined]);
  expect(ruminate(['checkpoint', 'ls', '--all'], store).stdout).toMatch(/\nsums +erased /);
  expect(existsSync(path.join(store, 'kv', 'local', 'sums', 't'))).toBe(false);
  expect(ruminate([...RUN, '--job', 'sums'], store).stderr).toMatch(/ERR_JOB_CONFLICT/);
});

describe('gc', () => {
  test('deletes what a dry run said, and what is left is right', () => {
    const store = fresh();
    const dry = ruminate(['gc', '--all', '--dry-run', '--json'], store).lines();
    const before = ruminate(['checkpoint', 'ls', '--json'], store).lines();
    const real = ruminate(['gc', '--all', '--json'], store).lines();
    expect(real.map(({ job, objects, bytes }) => ({ job, objects, bytes }))).toEqual(dry.map(({ job, objects, bytes }) => ({ job, objects, bytes })));
    for (const line of dry) expect(line.names).toHaveLength(line.objects as number);
    const after = ruminate(['checkpoint', 'ls', '--json'], store).lines();
    for (const [i, line] of after.slice(0, -1).entries()) expect(line).toMatchObject({ objects: (before[i]?.objects as number) - (real[i]?.objects as number), garbage_bytes: 0 });
    expect(ruminate(['checkpoint', 'verify', '--all'], store).status).toBe(0);
  });

  test('a damaged job keeps nobody else from being collected, and is not touched', () => {
    const store = fresh();
    damage(fileOf(store, 'more', /HEAD/));
    const { status, stdout, stderr } = ruminate(['gc', '--all'], store);
    expect(status).toBe(1);
    expect(stderr).toMatch(/ERR_CHECKPOINT: damaged: .*more: nothing deleted/);
    expect(stdout).toMatch(/1 job: /);
  });
});

test('a sealed job is right with its key and not without', async () => {
  const key = await keyFile();
  try {
    const store = folder();
    const env = { RUMINATE_KEY: `file:${key.file}` };
    expect(ruminate([...RUN, '--job', 'secret'], store, env)).toMatchObject({ status: 0 });
    expect(ruminate(['checkpoint', 'inspect', 'secret'], store).stdout).toMatch(/^sealed +AES-256-GCM/m);
    expect(ruminate(['checkpoint', 'verify', 'secret'], store, env)).toMatchObject({ status: 0 });
    expect(ruminate(['checkpoint', 'verify', 'secret'], store)).toMatchObject({ status: 1, stdout: expect.stringMatching(/not all checked/) as string });
  } finally {
    key.remove();
  }
});

test('Ctrl-C while nobody takes what is exported ends with 130 and one line', async () => {
  const child = spawn(process.execPath, [BIN, 'checkpoint', 'export', 'sums', '-'], { env: { ...process.env, RUMINATE_STORE: original } });
  let stderr = '';
  child.stderr.on('data', (chunk: Buffer) => {
    stderr += chunk.toString();
    // It has said so while its output was still waiting.
    if (stderr.includes('\n')) child.stdout.destroy();
  });
  // The pipe has begun to fill, and is not read: the process cannot come to its end.
  child.stdout.once('readable', () => child.kill('SIGINT'));
  const status = await new Promise((resolve) => child.on('close', resolve));
  expect([status, stderr]).toEqual([130, expect.stringMatching(/^ruminate: ERR_CANCELLED: [^\n]*\n$/)]);
});
