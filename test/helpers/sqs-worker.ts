/**
 * A worker that stops itself: `tsx sqs-worker.ts <json of SqsWork>`, with the environment of `ruminate worker`. Says `ready`, and `stopped` when it
 * stands still (SIGSTOP), after so many writes of heads.
 */
import { writeSync } from 'node:fs';

import { openModelSource } from '../../engine/adapters/model-source.ts';
import { openQueue } from '../../engine/adapters/queue-url.ts';
import { openStore } from '../../engine/adapters/store-url.ts';
import { ModelCache } from '../../engine/model/cache.ts';
import { CachingFinder } from '../../engine/model/finder.ts';
import type { ObjectStore } from '../../engine/ports/object-store.ts';
import { Worker } from '../../engine/worker/worker.ts';

export interface SqsWork {
  readonly store: string;
  readonly queue: string;
  readonly stopAfterHeads: number;
}

const work = JSON.parse(process.argv[2] ?? '') as SqsWork;

function stopping(store: ObjectStore, heads: number): ObjectStore {
  let seen = 0;
  const put: ObjectStore['put'] = async (key, body, options) => {
    const outcome = await store.put(key, body, options);
    if (key.endsWith('/HEAD') && ++seen === heads) {
      say('stopped');
      process.kill(process.pid, 'SIGSTOP');
    }
    return outcome;
  };
  return new Proxy(store, {
    get(target, key) {
      if (key === 'put') return put;
      const value: unknown = Reflect.get(target, key, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

// Not through a stream: what was said before it stopped must have been said.
function say(line: string): void {
  writeSync(1, `${line}\n`);
}

const { queue } = await openQueue(work.queue);
const finder = new CachingFinder({ cache: new ModelCache(), open: openModelSource, store: process.env.RUMINATE_MODELS_STORE });
new Worker({ store: stopping(await openStore(work.store), work.stopAfterHeads), queue, models: finder, threads: 1, policy: { deltaTokens: 40 } }).start();
say('ready');
