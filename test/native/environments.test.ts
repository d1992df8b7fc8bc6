/**
 * Worker threads and processes that end with live handles: nothing crashes, nothing hangs, and what still runs is not disturbed.
 * Method: tenant.ts, as a worker or as a child process, ends in every way there is while it holds open engines and calls in flight.
 */
import { spawn } from 'node:child_process';
import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { Worker } from 'node:worker_threads';
import { buildSync } from 'esbuild';
import { beforeAll, describe, expect, test } from 'vitest';

import { childrenCpuMs, cpuMs } from '../helpers/cpu.ts';
import { bundledModel, open, ROOT, runOptions } from '../helpers/engine.ts';
import type { Mode } from '../helpers/tenant.ts';

const TSX = pathToFileURL(path.join(ROOT, 'node_modules', 'tsx', 'dist', 'loader.mjs')).href;
// Bundled: a worker of a process without tsx cannot load TypeScript.
const TENANT = path.join(ROOT, 'build', 'test', 'tenant.mjs');
/** Of the processor: far below what the steps in flight would take (more than 60 s), far above a slice of them and a start. A prompt in flight would be over within 2 s. */
const PROMPT_MS = 20_000;

beforeAll(() => {
  const entry = path.join(ROOT, 'test', 'helpers', 'tenant.ts');
  buildSync({ entryPoints: [entry], outfile: TENANT, bundle: true, platform: 'node', format: 'esm', target: 'node20', packages: 'external' });
});

describe('worker threads', () => {
  test('several at once get the tokens of the main thread', async () => {
    const golden = await tokensHere();
    const workers = [1, 2, 3, 4].map(() => startWorker('use'));
    expect(await Promise.all(workers.map((worker) => worker.message))).toEqual([golden, golden, golden, golden]);
    expect(await Promise.all(workers.map((worker) => worker.exit))).toEqual([0, 0, 0, 0]);
  });

  test('terminate() during a long call ends the worker promptly and leaves the others alone', async () => {
    const golden = await tokensHere();
    for (let round = 0; round < 3; ++round) {
      const workers = [startWorker('step'), startWorker('step')];
      await Promise.all(workers.map((worker) => worker.message));
      const startedMs = cpuMs();
      await Promise.all(workers.map((worker) => worker.thread.terminate()));
      expect(cpuMs() - startedMs).toBeLessThan(PROMPT_MS);
      expect(await tokensHere()).toEqual(golden);
    }
  });

  test('an exception or process.exit() in a worker during a long call ends only the worker', async () => {
    const thrower = startWorker('throw');
    await expect(thrower.exit).rejects.toThrow('on purpose');
    const leaver = startWorker('step-then-exit');
    expect(await leaver.exit).toBe(0);
    await tokensHere();
  });
});

describe('processes', () => {
  test.each<Mode>(['use', 'save', 'open-then-exit', 'step-then-exit', 'prefill-then-exit'])('a process in mode %s exits promptly with code 0', async (mode) => {
    const startedMs = childrenCpuMs();
    const { code, signal, stderr } = await runProcess(mode);
    expect({ code, signal, stderr }).toEqual({ code: 0, signal: null, stderr: '' });
    expect(childrenCpuMs() - startedMs).toBeLessThan(PROMPT_MS);
  });

  test('an uncaught exception during a long call ends the process with its own message and code 1', async () => {
    const { code, signal, stderr } = await runProcess('throw');
    expect({ code, signal }).toEqual({ code: 1, signal: null });
    expect(stderr).toContain('on purpose');
  });

  test('SIGTERM during a long call ends the process', async () => {
    const child = start('step');
    await child.firstLine;
    child.process.kill('SIGTERM');
    expect(await child.ended).toMatchObject({ code: null, signal: 'SIGTERM' });
  });
});

describe('the level of the machine', () => {
  test('RUMINATE_ISA forces a level', async () => {
    const { stdout } = await runProcess('info', { RUMINATE_ISA: 'portable' });
    expect(JSON.parse(stdout)).toMatchObject({ numericsId: 'exact-1', isa: 'portable' });
  });

  test('an unknown RUMINATE_ISA is ERR_OPTION', async () => {
    const { stdout } = await runProcess('info', { RUMINATE_ISA: 'quantum' });
    expect(JSON.parse(stdout)).toEqual({ code: 'ERR_OPTION' });
  });
});

describe('without a native engine', () => {
  test('one that was never built is ERR_NATIVE_MISSING and says what to run', async () => {
    await inCopy(() => undefined, 'ERR_NATIVE_MISSING The native engine is not built');
  });

  test('one that does not load is ERR_NATIVE_MISSING', async () => {
    await inCopy((folder) => {
      cpSync(path.join(ROOT, 'package.json'), path.join(folder, 'build', 'native', 'ruminate.node'), { recursive: true });
    }, 'ERR_NATIVE_MISSING The native engine does not load here');
  });
});

async function inCopy(prepare: (folder: string) => void, expected: string): Promise<void> {
  const folder = mkdtempSync(path.join(tmpdir(), 'ruminate-'));
  try {
    for (const part of ['package.json', path.join('engine', 'core'), path.join('engine', 'runtime')]) {
      cpSync(path.join(ROOT, part), path.join(folder, part), { recursive: true });
    }
    prepare(folder);
    const script = path.join(folder, 'main.ts');
    writeFileSync(script, "import { nativeInfo } from './engine/runtime/native.ts';\ntry { nativeInfo(); } catch (e: any) { console.log(e.code, e.message); }\n");
    const { stdout } = await startScript(script).ended;
    expect(stdout).toContain(expected);
    expect(stdout).toContain('`npm run build`');
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function tokensHere(): Promise<number[][]> {
  using engine = await open(bundledModel('cr4'));
  using run = engine.createRun(runOptions());
  await run.prefill();
  await run.step(8);
  return run.report().chains.map((chain) => [...chain.tokens]);
}

function startWorker(mode: Mode) {
  const thread = new Worker(TENANT, { workerData: mode, execArgv: [] });
  const message = new Promise<unknown>((resolve, reject) => thread.once('message', resolve).once('error', reject));
  const exit = new Promise<number>((resolve, reject) => thread.once('exit', resolve).once('error', reject));
  message.catch(() => undefined);
  exit.catch(() => undefined);
  return { thread, message, exit };
}

function start(mode: Mode, env: Record<string, string> = {}) {
  return startScript(TENANT, [mode], env);
}

function runProcess(mode: Mode, env: Record<string, string> = {}) {
  return start(mode, env).ended;
}

function startScript(script: string, args: readonly string[] = [], env: Record<string, string> = {}) {
  const child = spawn(process.execPath, ['--import', TSX, script, ...args], { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
  let stdout = '';
  let stderr = '';
  const firstLine = new Promise<void>((resolve) => child.stdout.once('data', () => resolve()));
  child.stdout.on('data', (chunk: Buffer) => { stdout += chunk.toString(); });
  child.stderr.on('data', (chunk: Buffer) => { stderr += chunk.toString(); });
  const ended = new Promise<{ code: number | null; signal: string | null; stdout: string; stderr: string }>((resolve) => {
    child.on('close', (code, signal) => resolve({ code, signal, stdout, stderr }));
  });
  return { process: child, firstLine, ended };
}
