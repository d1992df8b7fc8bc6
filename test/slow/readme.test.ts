/** The path of whoever has just built it: every command of README, typed in its order in a checkout of its own. What is installed and compiled is not done again. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { freePort } from '../helpers/port.ts';
import { readSse } from '../helpers/sse.ts';
import { README, blocksOf, commandsOf, freshCheckout } from '../helpers/readme.ts';

/** What cannot be typed as it stands, and why. One that README does not have any more fails. */
const SKIPPED: Readonly<Record<string, string>> = {
  'npm test': 'the fast suite, which runs by itself',
  '--prompt-file long.txt': 'the reader\'s own files',
  'SmolLM2-135M-Instruct.Q4_1.gguf': 'the reader\'s own file; test/slow/llama-cpp.test.ts runs it',
  's3://bucket/': 'the reader\'s own bucket; test/slow/s3-peers.test.ts has some',
};

/** Words that stand for something of the reader's. */
const STANDS_FOR: readonly (readonly [RegExp, string])[] = [[/\bcheck DIR\b/, 'check models/countdown/cr8']];

interface Run {
  readonly stdout: string;
  readonly all: string;
}

/** What README says of a command, beyond that it works. `earlier`: what was printed before it, newest last. */
const SAYS: readonly (readonly [RegExp, (run: Run, earlier: readonly Run[]) => void])[] = [
  [/^npx ruminate run "4 20 8 13 target 59" +#/, ({ stdout }) => expect(stdout).toMatch(/4 chains/)],
  [/--json/, ({ stdout }) => {
    const result = JSON.parse(stdout) as object;
    expect(Object.keys(result)).toEqual(expect.arrayContaining(['answer', 'ballots', 'chains', 'usage', 'timing']));
  }],
  [/ruminate resume sums/, ({ stdout }, earlier) => expect(billOf(stdout)).toEqual(billOf(earlier.at(-1)?.stdout ?? ''))],
  [/ruminate extend sums --width \+4/, ({ stdout }) => expect(stdout).toMatch(/in 8 chains/)],
  [/chat\/completions/, ({ stdout }) => {
    expect(stdout.trimEnd().endsWith('data: [DONE]')).toBe(true);
    expect(stdout).toContain('"hyperscale"');
  }],
  [/-X PUT .*\/v1\/jobs\/sums/, ({ stdout }) => expect(JSON.parse(stdout)).toMatchObject({ object: 'job', id: 'sums' })],
  [/\/v1\/jobs\/sums\/events/, ({ stdout }) => {
    const ids = [...stdout.matchAll(/^id: (\d+)$/gm)].map(([, id]) => Number(id));
    expect(ids[0]).toBe(100);
    expect(stdout).toContain('event: end');
  }],
  [/\/v1\/checkpoints\/sums/, ({ stdout }) => expect(JSON.parse(stdout)).toMatchObject({ object: 'checkpoint', id: 'sums', missing: [] })],
];

/** Answer, tokens and reads, without times. */
const billOf = (stdout: string) => stdout.split('\n').filter((line) => /^(Answer|tokens|KV reads|peak KV)/.test(line));

/** A server and a worker beside the first one, until they are stopped. */
const STAYS = /^npx ruminate (serve|worker) /;

let folder: string;
let port: number;
let besidePort: number;
let server: ChildProcess | null = null;
const beside: ChildProcess[] = [];
beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'ruminate-readme-'));
  freshCheckout(folder);
  [port, besidePort] = [await freePort(), await freePort()];
}, 300_000);
afterAll(async () => {
  await stop('SIGKILL');
  for (const child of beside) if (child.exitCode === null && child.signalCode === null && child.pid !== undefined) process.kill(-child.pid, 'SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});

/** As README has it, but for the port, which somebody else may have here; and an answer of 400 or more is a failure, which curl does not call one by itself. */
const here = (text: string) => STANDS_FOR.reduce((line, [word, real]) => line.replace(word, real), text).replaceAll('8787', `${port}`).replace(/^curl /, 'curl --fail-with-body -sS ');

/** To its end. @throws with what it printed, if it fails. */
async function typed(command: string): Promise<Run> {
  const child = spawn('sh', ['-c', here(command)], { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] });
  let [stdout, all] = ['', ''];
  child.stdout.on('data', (chunk: Buffer) => { stdout += chunk.toString(); all += chunk.toString(); });
  child.stderr.on('data', (chunk: Buffer) => { all += chunk.toString(); });
  const [code] = (await once(child, 'close')) as [number | null];
  if (code !== 0) throw new Error(`${command}\nended with ${code}:\n${all.slice(-4_000)}`);
  return { stdout, all };
}

/** Until it says that it is there. A group of its own, as a terminal makes one: Ctrl-C goes to all of it. */
async function started(command: string, isThere: (all: string) => boolean): Promise<ChildProcess> {
  const child = spawn('sh', ['-c', here(command)], { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'], detached: true });
  let all = '';
  await new Promise<void>((resolve, reject) => {
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (chunk: Buffer) => {
        all += chunk.toString();
        if (isThere(all)) resolve();
      });
    }
    child.once('close', (code) => reject(new Error(`${command}\nended with ${code}:\n${all.slice(-4_000)}`)));
  });
  return child;
}

async function start(command: string): Promise<void> {
  server = await started(command.replace('npm start', `npm start -- --port ${port}`), (all) => all.includes(`127.0.0.1:${port}`) && all.includes('curl'));
}

/** README's first server has the port that it does not name. */
async function stay(command: string): Promise<void> {
  const isServer = command.includes('serve');
  beside.push(await started(isServer ? command.replace('serve', `serve --port ${besidePort}`) : command, (all) => (isServer ? all.includes(`127.0.0.1:${besidePort}`) : all.includes('working for'))));
}

async function stop(signal: 'SIGINT' | 'SIGKILL'): Promise<void> {
  const child = server;
  server = null;
  if (child?.pid === undefined) return;
  const closed = once(child, 'close');
  process.kill(-child.pid, signal);
  await closed;
}

const blocks = blocksOf(README);
const programs = blocks.filter(({ language }) => language === 'ts');
const commands = blocks.filter(({ language }) => language === '' || language === 'sh').flatMap(commandsOf);
const skipped = (command: string) => Object.keys(SKIPPED).find((part) => command.includes(part));

describe('README', () => {
  test('has commands and programs, none of another kind, and what is left out here is there', () => {
    expect(blocks.every(({ language }) => ['', 'sh', 'ts'].includes(language))).toBe(true);
    expect(commands.length).toBeGreaterThan(15);
    expect(programs.length).toBeGreaterThan(0);
    for (const part of Object.keys(SKIPPED)) expect(commands.filter((command) => command.includes(part))).not.toEqual([]);
    for (const [pattern] of SAYS) expect(commands.some((command) => pattern.test(command))).toBe(true);
  });

  const earlier: Run[] = [];
  test.each(commands.filter((command) => skipped(command) === undefined))('%s', async (command) => {
    if (command.startsWith('npm start')) return await start(command);
    if (STAYS.test(command)) return await stay(command);
    const run = await typed(command);
    for (const [pattern, says] of SAYS) if (pattern.test(command)) says(run, earlier);
    earlier.push(run);
  }, 300_000);

  test.each(programs.map(({ text }, at) => [at, text] as const))('program %i', async (at, text) => {
    writeFileSync(path.join(folder, `readme-${at}.ts`), here(text));
    expect((await typed(`npx tsx readme-${at}.ts`)).stdout.trim()).not.toBe('');
  }, 300_000);

  test('what one process answers another runs, and Ctrl-C ends both', async () => {
    const url = `http://127.0.0.1:${besidePort}/v1/jobs/apart`;
    const job = { model: 'countdown', prompt: '4 20 8 13 target 59', budget: { length: 200, width: 2 }, seed: 7 };
    expect((await fetch(url, { method: 'PUT', headers: { 'content-type': 'application/json' }, body: JSON.stringify(job) })).status).toBe(200);
    expect((await readSse(await fetch(`${url}/events`))).some(({ event }) => event === 'end')).toBe(true);
    expect((await fetch(`${url}/result`)).status).toBe(200);
    expect(beside).toHaveLength(2);
    for (const child of beside) {
      const closed = once(child, 'close');
      process.kill(-(child.pid ?? 0), 'SIGINT');
      await closed;
    }
  }, 300_000);

  test('Ctrl-C parks what runs, and the next start goes on with it: its reader misses no event and sees none twice', async () => {
    const url = () => `http://127.0.0.1:${port}`;
    const job = { model: 'countdown@dense', prompt: '3 5 7 11 13 17 target 997', sampling: { temperature: 1, logit_bias: [[2, -100]] }, budget: { width: 8, length: 900 }, vote: 'none' };
    let slice = 1;
    // Where this process stood still, the job may have ended before Ctrl-C.
    for (let begun = 1; slice === 1; begun++) {
      expect(begun).toBeLessThan(5);
      const name = `long-${begun}`;
      const put = await fetch(`${url()}/v1/jobs/${name}`, { method: 'PUT', headers: { 'content-type': 'application/json' }, body: JSON.stringify(job) });
      expect(put.status).toBe(200);
      const follow = async (after: number, until: (seq: number) => boolean = () => false) =>
        (await readSse(await fetch(`${url()}/v1/jobs/${name}/events`, { headers: { 'last-event-id': `${after}` } }), ({ id }) => until(Number(id)))).filter(({ id, event }) => id !== null && event !== 'end').map(({ id }) => Number(id));
      const before = await follow(-1, (seq) => seq >= 500);
      await stop('SIGINT');
      await start('npm start');
      const after = await follow(before.at(-1) ?? -1);
      expect([...before, ...after]).toEqual(Array.from({ length: 8 * 900 + 8 + 1 }, (_, seq) => seq));
      ({ slice } = (await (await fetch(`${url()}/v1/jobs/${name}`)).json()) as { slice: number });
    }
    // What README's own job has said is there as well.
    expect((await fetch(`${url()}/v1/jobs/sums/result`)).status).toBe(200);
    await stop('SIGINT');
  }, 300_000);
});
