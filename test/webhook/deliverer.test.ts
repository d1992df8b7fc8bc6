/** Deliveries over a store that fails, instances that die and receivers that do what they like. */
import { Webhook } from 'standardwebhooks';
import { describe, expect, test } from 'vitest';

import { KeyFile } from '../../engine/adapters/key-file.ts';
import { MemoryStore, type MemoryStoreOptions } from '../../engine/adapters/memory.ts';
import { jobIds } from '../../engine/control/ids.ts';
import { EngineError } from '../../engine/core/errors.ts';
import { LIMITS } from '../../engine/core/limits.ts';
import { createJob } from '../../engine/kv/create.ts';
import { endJob } from '../../engine/kv/end.ts';
import type { Via } from '../../engine/kv/hints.ts';
import { reconcile } from '../../engine/kv/reconcile.ts';
import type { KeyProvider } from '../../engine/ports/keys.ts';
import type { Outgoing, Reply } from '../../engine/ports/sender.ts';
import { SCHEDULE_MS, delayMs } from '../../engine/webhook/delivery.ts';
import { Deliverer, type DelivererEvent } from '../../engine/webhook/deliverer.ts';
import { eventsOf } from '../../engine/webhook/events.ts';
import { Outbox } from '../../engine/webhook/outbox.ts';
import { Webhooks } from '../../engine/webhook/webhooks.ts';

const me = { tenant: 'acme' };
const NOON = Date.UTC(2026, 10, 25, 12);
const HOOK = { ...me, url: 'https://example.com/hooks', events: ['job.*', 'batch.*'] };
const newId = jobIds();
const NO_ANSWER: Reply = { kind: 'failed', why: 'timeout' };

/** A wall clock that the test moves, and instances that share a store and a receiver. */
class Post {
  readonly store: MemoryStore;
  readonly sent: Outgoing[] = [];
  readonly events: DelivererEvent[] = [];
  nowMs = NOON;
  answer: (message: Outgoing) => Reply | Promise<Reply> = () => ({ kind: 'answered', status: 200 });
  readonly keys: KeyProvider | null;
  readonly webhooks: Webhooks;

  constructor({ keys = null, ...options }: MemoryStoreOptions & { readonly keys?: KeyProvider | null } = {}) {
    this.store = new MemoryStore(options);
    this.keys = keys;
    this.webhooks = new Webhooks({ store: this.store, keys, allowLoopback: false, nowMs: () => this.nowMs });
  }

  get outbox(): Outbox {
    return new Outbox({ store: this.store, nowMs: () => this.nowMs });
  }

  /** A job that was made, and ended from outside; nothing was told of it yet. */
  async endedJob(via?: Via): Promise<string> {
    const where = { ...me, job: newId(NOON) };
    await createJob(this.store, where, '{"a":1}', { via });
    await endJob(this.store, where, 'cancelled');
    return where.job;
  }

  /** A new instance looks until nothing is due at this moment. */
  async deliver(instances = 1): Promise<void> {
    const deliverers = Array.from({ length: instances }, () => new Deliverer({
      store: this.store, keys: this.keys, nowMs: () => this.nowMs, lookMs: 20, publicUrl: 'https://api.example',
      onEvent: (event) => void this.events.push(event),
      sender: { send: async (message) => {
        this.sent.push(message);
        return await this.answer(message);
      } },
    }));
    for (const deliverer of deliverers) deliverer.start();
    for (let calm = 0; calm < 3;) {
      await new Promise((resolve) => setTimeout(resolve, 15));
      calm = this.dueMs().some((atMs) => atMs <= this.nowMs) ? 0 : calm + 1;
    }
    await Promise.all(deliverers.map((deliverer) => deliverer.stop()));
  }

  stored(prefix: string): readonly string[] {
    return [...this.store.snapshot().keys()].filter((key) => key.startsWith(prefix));
  }

  dueMs(): readonly number[] {
    return this.stored('due/').map((key) => Number(key.split('/')[1]));
  }

  async only(hook: string) {
    const { deliveries } = await this.webhooks.deliveries(hook, { ...me, limit: 10 });
    expect(deliveries).toHaveLength(1);
    return deliveries[0] as (typeof deliveries)[number];
  }
}

function verified(secret: string, { headers, body }: Outgoing): unknown {
  // Its clock is the machine's: the tolerance is its own, and tested by its own tests.
  const skewed = new Webhook(secret);
  const at = new Date(Number(headers['webhook-timestamp']) * 1_000);
  expect(headers['webhook-signature']?.split(' ')).toContain(skewed.sign(headers['webhook-id'] ?? '', at, body));
  return JSON.parse(body);
}

describe('the end of a job', () => {
  test('is told once, signed, with ids and a link and nothing else', async () => {
    const post = new Post();
    const hook = await post.webhooks.create(HOOK);
    const job = await post.endedJob();
    await post.outbox.jobEnded({ ...me, job });
    await post.deliver();
    expect(post.sent).toHaveLength(1);
    const [sent] = post.sent as [Outgoing];
    expect(sent.url).toBe(HOOK.url);
    expect(verified(hook.secret, sent)).toEqual({
      id: sent.headers['webhook-id'], object: 'event', type: 'job.cancelled', created_at: NOON / 1_000, timestamp: '2026-11-25T12:00:00.000Z',
      data: { id: job, object: 'job', url: `https://api.example/v1/jobs/${job}` },
    });
    expect(await post.only(hook.id)).toMatchObject({ id: sent.headers['webhook-id'], type: 'job.cancelled', subject: job, state: 'delivered', attempts: 1, status: 200, fault: null, nextMs: null });
    expect(post.stored('live/')).toEqual([]);
  });

  test('is recorded once by many who see it, and by the reconciler if whoever ended it died', async () => {
    const post = new Post();
    const hook = await post.webhooks.create(HOOK);
    const job = await post.endedJob();
    await Promise.all(Array.from({ length: 5 }, async () => await post.outbox.jobEnded({ ...me, job })));
    const orphan = await post.endedJob();
    for await (const _ of reconcile(post.store, new Map(), { onEnded: (where, options) => post.outbox.jobEnded(where, options) })) expect.unreachable();
    await post.deliver(3);
    expect(post.sent.map(({ body }) => (JSON.parse(body) as { data: { id: string } }).data.id).sort()).toEqual([job, orphan].sort());
    expect((await post.webhooks.deliveries(hook.id, { ...me, limit: 10 })).deliveries.map(({ state }) => state)).toEqual(['delivered', 'delivered']);
    expect(post.stored('live/')).toEqual([]);
  });

  test('at whichever operation the store fails is told all the same, as one delivery', async () => {
    let operations = 0;
    const quiet = new Post({ faults: () => ((operations += 1), null) });
    const through = async (at: number) => {
      let n = -1;
      let armed = false;
      const post = at < 0 ? quiet : new Post({ faults: () => (armed && ++n === at ? { kind: 'fail' } : null) });
      const hook = await post.webhooks.create(HOOK);
      const job = await post.endedJob();
      armed = true;
      if (at < 0) operations = 0;
      await post.outbox.jobEnded({ ...me, job }).catch(() => undefined);
      for await (const _ of reconcile(post.store, new Map(), { onEnded: (where, options) => post.outbox.jobEnded(where, options).catch(() => undefined) })) expect.unreachable();
      for await (const _ of reconcile(post.store, new Map(), { onEnded: (where, options) => post.outbox.jobEnded(where, options) })) expect.unreachable();
      armed = false;
      await post.deliver();
      return { post, hook };
    };
    const { hook: first } = await through(-1);
    expect(await quiet.only(first.id)).toMatchObject({ state: 'delivered' });
    for (let at = 0; at < 8; at++) {
      const { post, hook } = await through(at).catch((error: unknown) => {
        // The walk itself may meet it; it comes again.
        expect(error).toBeInstanceOf(EngineError);
        return { post: null, hook: null };
      });
      if (post === null) continue;
      expect(await post.only(hook.id), `at ${at}`).toMatchObject({ state: 'delivered', attempts: 1 });
      expect(post.sent).toHaveLength(1);
    }
    expect(operations).toBeGreaterThan(8);
  });

  test('is told as what was asked for: a background response also as that, a line of a batch not at all', async () => {
    expect(eventsOf('done', null, true)).toEqual(['job.completed']);
    expect(eventsOf('done', 'response', true)).toEqual(['job.completed', 'response.completed']);
    expect(eventsOf('done', 'response', false)).toEqual(['job.completed', 'response.incomplete']);
    expect(eventsOf('poisoned', 'response', false)).toEqual(['job.poisoned', 'response.failed']);
    expect(eventsOf('done', 'batch', true)).toEqual([]);
    expect(eventsOf('erased', null, true)).toEqual([]);
    const post = new Post();
    await post.webhooks.create({ ...HOOK, events: ['response.*'] });
    await post.webhooks.create({ ...HOOK, events: ['response.completed', 'job.failed'] });
    for (const via of ['response', 'batch', undefined] as const) await post.outbox.jobEnded({ ...me, job: await post.endedJob(via) });
    await post.outbox.batchEnded('acme', `batch_${newId(NOON)}`, 'batch.completed');
    await post.deliver();
    expect(post.sent.map(({ body }) => (JSON.parse(body) as { type: string }).type)).toEqual(['response.cancelled']);
    expect(post.sent[0]?.body).toMatch(/"id":"resp_.*"url":"https:\/\/api.example\/v1\/responses\/resp_/);
  });
});

describe('a receiver', () => {
  test('that does not answer is tried on the schedule, by whichever instance, and then given up', async () => {
    const post = new Post();
    const { id } = await post.webhooks.create(HOOK);
    await post.outbox.jobEnded({ ...me, job: await post.endedJob() });
    post.answer = () => NO_ANSWER;
    for (let n = 1; n <= SCHEDULE_MS.length; n++) {
      await post.deliver(2);
      expect(post.sent).toHaveLength(n);
      const delivery = await post.only(id);
      if (n === SCHEDULE_MS.length) {
        expect(delivery).toMatchObject({ state: 'failed', attempts: n, fault: 'timeout', status: null, nextMs: null, endedMs: post.nowMs });
        break;
      }
      const waitMs = (delivery.nextMs ?? 0) - post.nowMs;
      expect(waitMs).toBeGreaterThanOrEqual(SCHEDULE_MS[n] ?? 0);
      expect(waitMs).toBeLessThanOrEqual((SCHEDULE_MS[n] ?? 0) * 1.25 + 1);
      // Not a moment before.
      post.nowMs += waitMs - 1;
      await post.deliver();
      expect(post.sent).toHaveLength(n);
      post.nowMs += 1;
    }
    // Every attempt says the same: one webhook-id, one body; signed anew.
    expect(new Set(post.sent.map(({ headers }) => headers['webhook-id'])).size).toBe(1);
    expect(new Set(post.sent.map(({ body }) => body)).size).toBe(1);
    expect(new Set(post.sent.map(({ headers }) => headers['webhook-timestamp'])).size).toBe(SCHEDULE_MS.length);
    expect(new Set([1, 2, 3, 4].map((n) => delayMs(`msg_${n}`, 0, 3))).size).toBe(4);
  });

  test('that is back gets it, and one that says 410 is asked no more', async () => {
    const post = new Post();
    const { id } = await post.webhooks.create(HOOK);
    await post.outbox.jobEnded({ ...me, job: await post.endedJob() });
    for (const status of [500, 302, 200]) {
      post.answer = () => ({ kind: 'answered', status });
      await post.deliver();
      expect(await post.only(id)).toMatchObject({ status, state: status === 200 ? 'delivered' : 'pending' });
      post.nowMs += 3_600_000;
    }
    expect(post.sent).toHaveLength(3);
    post.answer = () => ({ kind: 'answered', status: 410 });
    await post.outbox.jobEnded({ ...me, job: await post.endedJob() });
    await post.deliver();
    post.nowMs += 86_400_000;
    await post.deliver();
    expect(post.sent).toHaveLength(4);
    expect((await post.webhooks.deliveries(id, { ...me, limit: 10 })).deliveries.filter(({ state }) => state === 'failed')).toHaveLength(1);
  });

  test('that hangs holds two of many: others are served meanwhile', async () => {
    const post = new Post();
    await post.webhooks.create({ ...HOOK, url: 'https://hangs.example/' });
    await post.webhooks.create({ ...HOOK, url: 'https://answers.example/' });
    for (let n = 0; n < 5; n++) await post.outbox.jobEnded({ ...me, job: await post.endedJob() });
    let let_go = (): void => undefined;
    const hanging = new Promise<Reply>((resolve) => { let_go = () => resolve(NO_ANSWER); });
    const to = (host: string) => post.sent.filter(({ url }) => url.includes(host)).length;
    post.answer = async ({ url }) => (url.includes('hangs') ? await hanging : { kind: 'answered', status: 200 });
    const delivering = post.deliver();
    while (to('answers') < 5) await new Promise((resolve) => setTimeout(resolve, 5));
    expect(to('hangs')).toBe(LIMITS.WEBHOOKS_IN_FLIGHT_A_HOOK);
    let_go();
    await delivering;
    expect(to('hangs')).toBe(5);
  });

  test('gets it again if the instance that sent it died before it wrote so, under the same id', async () => {
    const post = new Post();
    const { id } = await post.webhooks.create(HOOK);
    await post.outbox.jobEnded({ ...me, job: await post.endedJob() });
    const dying = new Deliverer({ store: post.store, keys: null, nowMs: () => post.nowMs, sender: { send: (message, { signal } = {}) => {
      post.sent.push(message);
      return new Promise((_, reject) => signal?.addEventListener('abort', () => reject(new EngineError('ERR_CANCELLED', 'The call was cancelled.'))));
    } } });
    dying.start();
    while (post.sent.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    await dying.stop();
    expect(await post.only(id)).toMatchObject({ state: 'pending', attempts: 1 });
    await post.deliver();
    expect(post.sent).toHaveLength(1);
    post.nowMs += 10 * 60_000;
    await post.deliver();
    expect(post.sent).toHaveLength(2);
    expect(post.sent[1]?.headers['webhook-id']).toBe(post.sent[0]?.headers['webhook-id']);
    expect(await post.only(id)).toMatchObject({ state: 'delivered', attempts: 2 });
  });
});

describe('a delivery', () => {
  test('is replayed under its own id, at once, and from the beginning of the schedule', async () => {
    const post = new Post();
    const hook = await post.webhooks.create(HOOK);
    await post.outbox.jobEnded({ ...me, job: await post.endedJob() });
    await post.deliver();
    const { id } = await post.only(hook.id);
    post.nowMs += 60_000;
    post.answer = () => ({ kind: 'answered', status: 503 });
    expect(await post.webhooks.replay(hook.id, id, me)).toMatchObject({ state: 'pending', attempts: 0, round: 1, status: 200, nextMs: post.nowMs });
    await post.deliver();
    expect(await post.only(hook.id)).toMatchObject({ state: 'pending', attempts: 1, round: 1, status: 503 });
    expect(post.sent.map(({ headers }) => headers['webhook-id'])).toEqual([id, id]);
    // One that waits is tried now.
    post.answer = () => ({ kind: 'answered', status: 200 });
    await post.webhooks.replay(hook.id, id, me);
    await post.deliver();
    expect(await post.only(hook.id)).toMatchObject({ state: 'delivered', round: 2, attempts: 1 });
    await expect(post.webhooks.replay(hook.id, 'msg_nobody', me)).rejects.toMatchObject({ code: 'ERR_WEBHOOK_NOT_FOUND' });
    await expect(post.webhooks.replay(hook.id, id, { tenant: 'other' })).rejects.toMatchObject({ code: 'ERR_WEBHOOK_NOT_FOUND' });
  });

  test('is forgotten a week after its end, or with its hook, and leaves nothing', async () => {
    const post = new Post();
    const [kept, gone] = [await post.webhooks.create(HOOK), await post.webhooks.create(HOOK)];
    await post.outbox.jobEnded({ ...me, job: await post.endedJob() });
    await post.webhooks.delete(gone.id, me);
    await post.deliver();
    expect(post.sent).toHaveLength(1);
    expect(post.stored('deliveries/').every((key) => key.includes(kept.id))).toBe(true);
    expect(post.dueMs()).toEqual([NOON + LIMITS.WEBHOOK_RETENTION_MS]);
    post.nowMs = NOON + LIMITS.WEBHOOK_RETENTION_MS;
    await post.deliver();
    expect([...post.stored('deliveries/'), ...post.stored('due/')]).toEqual([]);
    await post.webhooks.delete(kept.id, me);
    expect(post.stored('hooks/')).toEqual([]);
    expect(post.sent).toHaveLength(1);
  });

  test('that cannot be read does not keep others from being sent', async () => {
    const post = new Post();
    const { id } = await post.webhooks.create(HOOK);
    for (let n = 0; n < 2; n++) await post.outbox.jobEnded({ ...me, job: await post.endedJob() });
    const [broken] = post.stored(`deliveries/acme/${id}/`);
    await post.store.put(broken ?? '', [Buffer.from('{')]);
    await post.deliver();
    expect(post.sent).toHaveLength(1);
    expect(post.events.filter(({ kind }) => kind === 'trouble')).toHaveLength(1);
  });
});

describe('a secret', () => {
  test('signs beside the one before it for a day, and then alone', async () => {
    const post = new Post();
    const hook = await post.webhooks.create(HOOK);
    const signatures = async () => {
      await post.outbox.jobEnded({ ...me, job: await post.endedJob() });
      await post.deliver();
      return post.sent.at(-1) as Outgoing;
    };
    const { secret: second } = await post.webhooks.rotate(hook.id, me);
    const both = await signatures();
    expect(both.headers['webhook-signature']?.split(' ')).toHaveLength(2);
    for (const secret of [hook.secret, second]) verified(secret, both);
    post.nowMs += LIMITS.WEBHOOK_SECRET_OVERLAP_MS;
    const alone = await signatures();
    expect(alone.headers['webhook-signature']?.split(' ')).toHaveLength(1);
    verified(second, alone);
    await post.webhooks.rotate(hook.id, me);
    await post.webhooks.rotate(hook.id, me);
    expect(post.stored(`hooks/acme/${hook.id}/secret-`)).toHaveLength(2);
    expect(second).toMatch(/^whsec_[A-Za-z0-9+/]{43}=$/);
  });

  test('is sealed where jobs are sealed, and a store that is copied elsewhere signs nothing', async () => {
    const keys = new KeyFile(Buffer.alloc(32, 1));
    const post = new Post({ keys });
    const hook = await post.webhooks.create(HOOK);
    const stored = Buffer.concat([...post.store.snapshot().values()].map((bytes) => Buffer.from(bytes))).toString('latin1');
    expect(stored).not.toContain(hook.secret.slice('whsec_'.length, -1));
    await post.outbox.jobEnded({ ...me, job: await post.endedJob() });
    await post.deliver();
    verified(hook.secret, post.sent[0] as Outgoing);
  });
});
