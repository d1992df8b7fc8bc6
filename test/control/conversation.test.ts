/** The next turn of a conversation: the same tokens as the whole text asked for at once, with what the turn before has left taken from there. */
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';

import { MemoryStore } from '../../engine/adapters/memory.ts';
import { NativeShelf } from '../../engine/control/native-shelf.ts';
import type { Platform } from '../../engine/control/platform.ts';
import type { StoredResult } from '../../engine/job/slice.ts';
import type { JobSpec } from '../../engine/job/spec.ts';
import { resumeStored } from '../../engine/job/stored.ts';
import { readJob } from '../../engine/kv/create.ts';
import { jobPrefix } from '../../engine/kv/names.ts';
import type { KeyProvider } from '../../engine/ports/keys.ts';
import { removeFolders } from '../helpers/models.ts';
import { keyFile } from '../helpers/stored-job.ts';
import { talkers } from '../helpers/talker.ts';
import { TENANT, platformOn } from './support.ts';

const me = { tenant: TENANT };
const FIRST = '7 18 17 7 target 35';
const NEXT = '4 20 8 13 target 59';

let shelf: NativeShelf;
beforeAll(() => {
  vi.stubEnv('RUMINATE_MODELS', talkers('cr2', 'dense'));
  shelf = new NativeShelf();
});
afterAll(() => {
  shelf[Symbol.dispose]();
  vi.unstubAllEnvs();
  removeFolders();
});

function asked(content: string, more: Partial<JobSpec> = {}): JobSpec {
  return { model: 'talker-cr2', messages: [{ role: 'user', content }], seed: 7n, page_slots: 4, budget: { length: 200, width: 3 }, vote: 'majority', early_stop: false, ...more };
}

interface Place {
  readonly store: MemoryStore;
  readonly platform: Platform;
  readonly keys: KeyProvider | null;
}

function place(keys: KeyProvider | null = null): Place {
  const store = new MemoryStore();
  return { store, keys, platform: platformOn(store, shelf, { keys }).platform };
}

async function run({ store, keys }: Place, job: string): Promise<StoredResult> {
  const outcome = await resumeStored({ store, keys, where: { ...me, job }, threads: 1, policy: { deltaTokens: 40 } });
  if (outcome.kind !== 'ended') throw new Error('parked');
  return outcome.result;
}

async function told(at: Place, id: string, spec: JobSpec, previous?: string): Promise<StoredResult> {
  await at.platform.submit(spec, { ...me, id, previous });
  return await run(at, id);
}

const same = ({ timing: _, resumed: _r, ...result }: StoredResult) => result;

/** The turns of the conversation up to and with the answer `result`, as a client would write them. */
const turns = (content: string, result: StoredResult) => {
  const text = (result.chains.find(({ answer }) => answer === result.answer && result.answer !== null) ?? result.chains[0])?.text ?? '';
  const [reasoning_content = '', answer = ''] = text.split('</think>');
  return [{ role: 'user', content }, { role: 'assistant', content: answer, reasoning_content }];
};

/** The whole text at once, elsewhere. */
const replayed = async (spec: JobSpec) => same(await told(place(), 'whole', spec));

describe('the next turn', () => {
  test.each(['talker-cr2', 'talker-dense'])('of %s computes only what is new, and is the whole text asked for at once in every token and count', async (model) => {
    const at = place();
    const first = await told(at, 'one', asked(FIRST, { model, sampling: { temperature: 0 } }));
    const second = await told(at, 'two', asked(NEXT, { model }), 'one');
    const before = first.usage.prompt_tokens + (first.chains[0]?.tokens.length ?? 0);
    // All but the token that ended the chain, which nobody had fed.
    expect(await at.platform.get('two', me)).toMatchObject({ parent: { job: 'one', kind: 'continue' }, cachedTokens: before - 1 });
    expect(second.usage.prompt_tokens).toBeGreaterThan(before);
    expect(second.resumed).toMatchObject([{ outcome: 'restored', reason: null, tokens_recomputed: second.usage.prompt_tokens - before + 1 }]);
    expect(same(second)).toEqual(await replayed(asked(NEXT, { model, messages: [...turns(FIRST, first), { role: 'user', content: NEXT }] })));
  });

  test('goes on from the elected chain, turn after turn, and may be extended', async () => {
    const at = place();
    const first = await told(at, 'one', asked(FIRST));
    const second = await told(at, 'two', asked(NEXT), 'one');
    const third = await told(at, 'three', asked(FIRST, { budget: { length: 40, width: 2 } }), 'two');
    const messages = [...turns(FIRST, first), ...turns(NEXT, second), { role: 'user', content: FIRST }];
    expect(same(third)).toEqual(await replayed(asked('', { messages, budget: { length: 40, width: 2 } })));
    expect((await at.platform.get('three', me)).cachedTokens).toBeGreaterThan(first.usage.prompt_tokens);
    await at.platform.extend('three', { ...me, as: 'longer', length: 60 });
    expect(same(await run(at, 'longer'))).toEqual(await replayed(asked('', { messages, budget: { length: 60, width: 2 } })));
  });

  test('of a sealed conversation is read with its key', async () => {
    const keys = await keyFile();
    try {
      const at = place(keys.provider);
      await told(at, 'one', asked(FIRST));
      const second = await told(at, 'two', asked(NEXT), 'one');
      expect(second.resumed).toMatchObject([{ outcome: 'restored' }]);
      const open = place();
      await told(open, 'one', asked(FIRST));
      expect(same(await told(open, 'two', asked(NEXT), 'one'))).toEqual(same(second));
    } finally {
      keys.remove();
    }
  });

  test('does not inherit instructions, nor what its caller said of the turn before', async () => {
    const at = place();
    await told(at, 'one', asked(FIRST, { instructions: '1 2', metadata: { a: 'b' }, user: 'u' }));
    expect(await at.platform.get('one', me)).toMatchObject({ metadata: { a: 'b' }, user: 'u' });
    const second = await told(at, 'two', asked(NEXT, { instructions: '3 4' }), 'one');
    expect(await at.platform.get('two', me)).toMatchObject({ metadata: null, user: null, cachedTokens: 0 });
    const { messages } = JSON.parse(Buffer.from(at.store.snapshot().get([...at.store.snapshot().keys()].find((key) => key.startsWith(`${jobPrefix({ ...me, job: 'two' })}spec-`)) ?? '') ?? []).toString()).spec as { messages: { role: string }[] };
    expect(messages.map(({ role }) => role)).toEqual(['user', 'assistant', 'user']);
    // Other words before the first turn: nothing of it is what the model has seen.
    expect(second.resumed).toMatchObject([{ outcome: 'recomputed', reason: expect.stringContaining('in common') as string }]);
  });

  test('of a model whose template hides earlier thinking is computed whole, and says so', async () => {
    const at = place();
    await told(at, 'one', asked(FIRST, { model: 'countdown@cr2' }));
    const second = await told(at, 'two', asked(NEXT, { model: 'countdown@cr2' }), 'one');
    expect(second.resumed).toMatchObject([{ outcome: 'recomputed', tokens_recomputed: second.usage.prompt_tokens }]);
    expect((await at.platform.get('two', me)).cachedTokens).toBe(0);
    const other = await told(at, 'three', asked(NEXT, { model: 'talker-dense' }), 'one');
    expect(other.resumed).toMatchObject([{ outcome: 'recomputed' }]);
  });
});

describe('what the turn before has lost', () => {
  async function conversation() {
    const at = place();
    const first = await told(at, 'one', asked(FIRST, { budget: { length: 200, width: 1 }, sampling: { temperature: 0 } }));
    const { manifest } = await readJob(at.store, { ...me, job: 'one' });
    await at.platform.submit(asked(NEXT), { ...me, id: 'two', previous: 'one' });
    const lose = async (index: number | undefined) => await at.store.delete([jobPrefix({ ...me, job: 'one' }) + (manifest?.objects[index ?? -1]?.name ?? '')]);
    return { at, manifest, lose, whole: await replayed(asked('', { messages: [...turns(FIRST, first), { role: 'user', content: NEXT }] })), first };
  }

  test('costs time and no token: an older tail, the prompt\'s, or none', async () => {
    const { at, manifest, lose, whole } = await conversation();
    const tails = manifest?.chains[0]?.tails ?? [];
    expect(tails).toHaveLength(2);
    for (const [n, cached] of [[0, (manifest?.promptTokens ?? 0) + (tails[0]?.at ?? 0)], [1, manifest?.promptTokens], [2, 0]] as const) {
      await lose(n === 2 ? manifest?.promptTail ?? undefined : tails.at(-1 - n)?.object);
      await at.platform.submit(asked(NEXT, { metadata: { n: `${n}` } }), { ...me, id: `lost-${n}`, previous: 'one' });
      expect(same(await run(at, `lost-${n}`))).toEqual(whole);
      expect((await at.platform.get(`lost-${n}`, me)).cachedTokens).toBe(cached);
    }
  });

  test('altogether is no fault of the next, which was asked for before', async () => {
    const { at, whole } = await conversation();
    await at.platform.erase('one', me);
    const second = await run(at, 'two');
    expect(same(second)).toEqual(whole);
    expect(second.resumed).toMatchObject([{ outcome: 'recomputed', reason: expect.any(String) as string }]);
  });
});

describe('a conversation', () => {
  test('goes on from an answer only, and the same request is the same turn', async () => {
    const at = place();
    await at.platform.submit(asked(FIRST), { ...me, id: 'one' });
    const next = (previous: string, more: Partial<JobSpec> = {}) => at.platform.submit({ ...asked(NEXT), ...more }, { ...me, id: 'two', previous });
    await expect(next('one')).rejects.toMatchObject({ code: 'ERR_OPTION', message: 'previous must have ended with an answer; it is queued.' });
    await run(at, 'one');
    await expect(next('nobody')).rejects.toMatchObject({ code: 'ERR_JOB_NOT_FOUND' });
    await expect(at.platform.submit(asked(NEXT), { tenant: 'mallory', previous: 'one' })).rejects.toMatchObject({ code: 'ERR_JOB_NOT_FOUND' });
    await expect(at.platform.submit({ model: 'talker-cr2', raw_prompt: 'user 1' }, { ...me, previous: 'one' })).rejects.toMatchObject({ code: 'ERR_OPTION' });
    await at.platform.submit({ model: 'talker-cr2', raw_prompt: '<s> user 1', budget: { length: 4, width: 1 } }, { ...me, id: 'raw' });
    await run(at, 'raw');
    await expect(next('raw')).rejects.toMatchObject({ code: 'ERR_OPTION', message: expect.stringContaining('raw prompt') as string });
    const once = await next('one');
    expect(await next('one')).toEqual(once);
    await expect(next('one', { seed: 8n })).rejects.toMatchObject({ code: 'ERR_JOB_CONFLICT' });
    await at.platform.cancel('two', me);
    await expect(at.platform.submit(asked(FIRST), { ...me, previous: 'two' })).rejects.toMatchObject({ code: 'ERR_OPTION', message: expect.stringContaining('cancelled') as string });
  });

  test('is no longer than a chat may be', async () => {
    const at = place();
    await told(at, 'one', asked(FIRST, { budget: { length: 8, width: 1 } }));
    const long = Array.from({ length: 1_023 }, () => ({ role: 'user', content: '1' }));
    await expect(at.platform.submit({ ...asked(''), messages: long }, { ...me, previous: 'one' })).rejects.toMatchObject({ code: 'ERR_OPTION', message: expect.stringContaining('1024') as string });
  });
});
