/** Shards on workers: whatever happens to messages and to those who run them, the job is the one it would have been on one machine. */
import { beforeAll, describe, expect, test } from 'vitest';

import type { JobSpec } from '../../engine/job/spec.ts';
import { readJob } from '../../engine/kv/create.ts';
import { endJob } from '../../engine/kv/end.ts';
import { liveKey } from '../../engine/kv/hints.ts';
import { shardKey } from '../../engine/kv/names.ts';
import { Bench, quiet, whereIs } from '../worker/support.ts';

/** Decided by the vote long before the longest chain would end. */
const SPEC: JobSpec = { model: 'countdown@cr2', prompt: '4 20 8 13 target 59', seed: 2n, vote: 'first', budget: { length: 300, width: 8 } };

let expected: unknown;
beforeAll(async () => {
  expected = await quiet(SPEC);
});

async function over(bench: Bench, job: string): Promise<void> {
  while (!['done', 'incomplete', 'cancelled', 'poisoned', 'failed', 'expired'].includes((await bench.head(job)).state)) await new Promise((resolve) => setTimeout(resolve, 10));
}

describe('shards', () => {
  test.each([1, 2, 3, 8])('%i of them on two workers give what one machine gives', async (shards) => {
    await using bench = new Bench();
    for (let i = 0; i < 2; i++) bench.worker({ slots: 2 });
    await bench.submit('sums', { ...SPEC, shards });
    await over(bench, 'sums');
    expect(await bench.head('sums')).toMatchObject({ state: 'done', epoch: 0, slice: 0, join: { shards, joined: Array.from({ length: shards }, (_, i) => i) } });
    expect(await bench.result('sums')).toEqual(expected);
    await bench[Symbol.asyncDispose]();
    expect(await bench.queue.depth()).toMatchObject({ visible: 0, inFlight: 0 });
    for (const key of [...bench.store.snapshot().keys()]) expect(key.startsWith('live/')).toBe(false);
  });
});
