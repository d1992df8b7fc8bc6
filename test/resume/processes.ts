/** Jobs parked here and gone on with by the command in a process of its own, with other threads and another level of the CPU. */
import { spawn } from 'node:child_process';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { openStore } from '../../engine/adapters/store-url.ts';
import { systemClock } from '../../engine/core/clock.ts';
import { runJob } from '../../engine/job/run.ts';
import { openSession } from '../../engine/job/session.ts';
import type { StoredResult } from '../../engine/job/slice.ts';
import { nativeInfo } from '../../engine/runtime/native.ts';
import { ROOT } from '../helpers/setup.ts';
import { LENGTH, MODELS, benchOf, comparable, create, jobOf, slice } from './jobs.ts';

export interface Place {
  readonly url: string;
  /** With which a process reaches it. */
  readonly environment: Readonly<Record<string, string>>;
}

export interface Ended {
  readonly status: number | null;
  readonly signal: string | null;
  readonly stdout: string;
  readonly stderr: string;
}

export function ruminate(args: readonly string[], environment: Readonly<Record<string, string>> = {}, onStart: (pid: number) => void = () => {}): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [path.join(ROOT, 'bin', 'ruminate.mjs'), ...args], { env: { ...process.env, ...environment }, stdio: ['ignore', 'pipe', 'pipe'] });
    let [stdout, stderr] = ['', ''];
    child.stdout.on('data', (chunk: Buffer) => { stdout += chunk.toString(); });
    child.stderr.on('data', (chunk: Buffer) => { stderr += chunk.toString(); });
    child.on('error', reject);
    child.on('close', (status, signal) => resolve({ status, signal, stdout, stderr }));
    if (child.pid !== undefined) onStart(child.pid);
  });
}

/** @param perModel cuts of each model. */
export function describeProcesses(name: string, perModel: number, open: () => Promise<Place & AsyncDisposable>): void {
  describe(`a new process on ${name}`, () => {
    let place: Place & AsyncDisposable;
    beforeAll(async () => {
      await ruminate(['--version']); // a fresh checkout builds
      place = await open();
      // The SDK looks nowhere else, and every test file is a process of its own.
      Object.assign(process.env, place.environment);
    }, 600_000);
    afterAll(() => place?.[Symbol.asyncDispose]());

    test.each(MODELS)(`goes on with %s at ${perModel} cuts`, async (model) => {
      using session = openSession();
      const bench = await benchOf(session, jobOf(model));
      const whole = comparable(await runJob(bench.job, { ...bench, clock: systemClock, cancelled: null, deadline: null }));
      const store = await openStore(place.url);
      const { isas } = nativeInfo();
      for (let i = 0; i < perModel; i++) {
        const at = Math.floor(((i + 0.4) * LENGTH) / perModel);
        const where = { tenant: 'local', job: `${model.replaceAll(' ', '-')}-${at}` };
        await create(store, where, bench);
        expect(await slice(store, where, bench, { stopAt: at, policy: { deltaTokens: 30 + i } })).toMatchObject({ kind: 'parked', step: at });
        const isa = isas[i % isas.length] ?? 'portable';
        const ended = await ruminate(['resume', where.job, '--store', place.url, '--threads', String((i % 3) + 1), '--json'], { RUMINATE_ISA: isa });
        expect(ended.status, ended.stderr).toBe(0);
        const result = JSON.parse(ended.stdout) as StoredResult;
        expect(comparable(result), `cut at ${at}`).toBe(whole);
        expect(result.resumed).toEqual([{ slice: 2, outcome: 'restored', reason: null, from_step: at, tokens_recomputed: 0 }]);
        expect(result.timing.isa).toBe(isa);
      }
    }, 1_800_000);
  });
}
