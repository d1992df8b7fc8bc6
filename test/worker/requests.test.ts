/** What a small job costs beside its tokens: requests to the store and to the queue, counted at their ports. Each is money on S3 and SQS, and time of a core on a disk. */
import { expect, test } from 'vitest';

import type { JobSpec } from '../../engine/job/spec.ts';
import type { Queue } from '../../engine/ports/queue.ts';
import { ManualClock } from '../helpers/clock.ts';
import { Bench, SHORT } from './support.ts';

const SMALL: JobSpec = { ...SHORT, vote: 'none', budget: { length: 8, width: 1 } };
/** From its message to its end, with nothing to wait for: two reads, the take, one commit of six, and what an end leaves behind. */
const STORE_REQUESTS = ['get HEAD', 'get spec', 'put HEAD', 'put t', 'put j', 'put t', 'put j', 'put m', 'put HEAD', 'put keep', 'put expire', 'list hooks', 'delete live'];

test('a small job asks its store thirteen times from its message to its end, reads its head once and writes it twice; and the queue for nothing but to hand it out and to remove it', async () => {
  // Its clock stands still: however slow this machine is, nothing becomes due meanwhile.
  await using bench = new Bench(new ManualClock());
  const asked: string[] = [];
  const queue = new Proxy(bench.queue, {
    get: (target, name: keyof Queue) => {
      const value: unknown = Reflect.get(target, name);
      if (typeof value !== 'function') return value;
      return (...args: unknown[]) => {
        asked.push(name);
        return (value as (...of: unknown[]) => unknown).apply(target, args);
      };
    },
  });
  bench.worker({ queue, slots: 1, policy: {} });
  // The walk of the start is over.
  await bench.event('counted');
  const where = await bench.submit('small', SMALL, { send: false });
  const from = bench.store.log.length;
  asked.length = 0;
  await bench.send('small');
  await bench.event('ended', 'small');
  while (asked.length < 2) await new Promise((resolve) => setTimeout(resolve, 1));
  const prefix = `kv/${where.tenant}/${where.job}/`;
  const said = bench.store.log.slice(from).map(({ kind, key }) => `${kind} ${(key.startsWith(prefix) ? key.slice(prefix.length) : key).split(/[/-]/)[0]}`);
  expect(said.sort()).toEqual([...STORE_REQUESTS].sort());
  // It had asked before, and has asked again.
  expect(asked.sort()).toEqual(['receive', 'remove']);
});
