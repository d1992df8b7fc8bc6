/** A job that is divided among shards is the job: the same tokens, ballots, vote and bill, byte for byte, however many there are. */
import { describe, expect, test } from 'vitest';

import { MemoryStore } from '../../engine/adapters/memory.ts';
import type { JobSpec } from '../../engine/job/spec.ts';
import { resumeStored, runStored } from '../../engine/job/stored.ts';
import { resultOf } from '../helpers/stored-job.ts';

const where = { tenant: 'acme', job: 'sums' };
const SPEC: JobSpec = { model: 'countdown@cr2', prompt: '4 20 8 13 target 59', seed: 7n, budget: { length: 160, width: 8 } };

async function divided(spec: JobSpec, shards: number | undefined): Promise<string> {
  const store = new MemoryStore();
  const options = { store, where, threads: 1, policy: { deltaTokens: 40 } };
  const first = resultOf(await runStored(shards === undefined ? spec : { ...spec, shards }, options));
  expect(resultOf(await resumeStored(options))).toEqual(first);
  return JSON.stringify(first);
}

describe.each(['countdown', 'countdown@cr2', 'countdown@cr8'])('%s', (model) => {
  test.each([
    ['a vote that is decided early', {}],
    ['every chain to its end', { early_stop: false }],
  ])('%s', async (_name, more) => {
    const spec = { ...SPEC, model, ...more };
    const whole = await divided(spec, undefined);
    for (const shards of [1, 2, 3, 8]) expect(await divided(spec, shards), `${shards} shards`).toBe(whole);
  });
});
