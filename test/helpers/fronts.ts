/** Any number of API servers over one store in memory, as instances of one platform, and a worker that runs their jobs. */
import OpenAI from 'openai';

import { MemoryStore, type MemoryStoreOptions } from '../../engine/adapters/memory.ts';
import { createLocalQueue } from '../../engine/adapters/queue-local.ts';
import { createNodeSender } from '../../engine/adapters/sender-node.ts';
import { NativeShelf } from '../../engine/control/native-shelf.ts';
import { StorePlatform } from '../../engine/control/store-platform.ts';
import { systemClock } from '../../engine/core/clock.ts';
import type { KeyProvider } from '../../engine/ports/keys.ts';
import { Deliverer } from '../../engine/webhook/deliverer.ts';
import { Outbox } from '../../engine/webhook/outbox.ts';
import { Webhooks } from '../../engine/webhook/webhooks.ts';
import { Worker } from '../../engine/worker/worker.ts';
import { createApp } from '../../functions/app.ts';
import { type KeyLookup, hashOf } from '../../functions/auth.ts';
import { type Listening, listen } from '../../functions/node.ts';
import { openBatches } from '../../functions/open-batches.ts';

export interface Front {
  readonly url: string;
  /** Of that tenant: its key is its name. */
  openai(tenant?: string): OpenAI;
}

export class Fronts implements AsyncDisposable {
  readonly store: MemoryStore;
  readonly keys: KeyProvider | null;
  readonly logged: string[] = [];
  readonly #queue = createLocalQueue({ clock: systemClock });
  readonly #shelf = new NativeShelf();
  readonly #listening: Listening[] = [];
  readonly #worker: Worker;
  readonly #outbox: Outbox;
  /** To receivers on this machine. */
  readonly #deliverer: Deliverer;

  constructor({ keys = null, ...store }: MemoryStoreOptions & { readonly keys?: KeyProvider | null } = {}) {
    this.store = new MemoryStore(store);
    this.keys = keys;
    this.#deliverer = new Deliverer({ store: this.store, keys, sender: createNodeSender({ allowLoopback: true }) });
    this.#outbox = new Outbox({ store: this.store, onRecorded: () => this.#deliverer.ring() });
    this.#worker = new Worker({ store: this.store, queue: this.#queue, keys, outbox: this.#outbox, threads: 1, clock: systemClock, isQueueNew: true });
  }

  /** From now on jobs run, also those whose message was lost. */
  work(): void {
    this.#worker.start();
    this.#deliverer.start();
  }

  /** @param actor how the store's hooks know it. */
  async front(actor = ''): Promise<Front> {
    const store = this.store.as(actor);
    const platform = new StorePlatform({
      store, keys: this.keys, queue: this.#queue, shelf: this.#shelf, feed: this.#worker, workers: this.#worker, outbox: this.#outbox, onCancelled: (where) => this.#worker.interrupt(where),
      letGo: (where, options) => this.#worker.letGo(where, options),
    });
    const note = (fields: object, message: string) => {
      this.logged.push(JSON.stringify({ ...fields, message }, (_, value: unknown) => (value instanceof Error ? String(value.stack) : value)));
    };
    const log = { info: note, warn: note, error: note };
    const webhooks = new Webhooks({ store, keys: this.keys, allowLoopback: true, onRecorded: () => this.#deliverer.ring() });
    // However long loading a model takes: whoever asks for a batch sees it moved on.
    const storage = openBatches({ store, keys: this.keys, platform, outbox: this.#outbox, log, waitMs: 60_000 });
    const app = createApp({ platform, storage, webhooks, auth: TENANTS, log, version: 'test' });
    const listening = await listen({ fetch: (request, from) => app.fetch(request, from), host: '127.0.0.1', port: 0 });
    this.#listening.push(listening);
    return { url: listening.url, openai: (tenant = 'acme') => new OpenAI({ baseURL: `${listening.url}/v1`, apiKey: tenant, maxRetries: 0 }) };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#listening.map((listening) => listening.end()));
    await this.#deliverer.stop();
    await this.#worker.drain({ deadlineMs: 20_000 });
    this.#shelf[Symbol.dispose]();
  }
}

const TENANTS: KeyLookup = {
  async find(sha256) {
    for (const tenant of ['acme', 'other']) {
      if ((await hashOf(tenant)) === sha256) return { tenant, scopes: ['read', 'write'], rpm: 100_000, concurrent: 100 };
    }
    return null;
  },
};
