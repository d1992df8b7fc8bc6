/** Batches over a store that fails, and over days: whatever happens to who moves a batch on, it ends with the same output. */
import { afterAll, describe, expect, test } from 'vitest';

import { KeyFile } from '../../engine/adapters/key-file.ts';
import { MemoryStore } from '../../engine/adapters/memory.ts';
import type { Fault, Operation } from '../../engine/adapters/memory-faults.ts';
import { lineJobId, parseLines } from '../../engine/control/batch-lines.ts';
import { type BatchView, WINDOW_MS } from '../../engine/control/batch-view.ts';
import { Batches } from '../../engine/control/batches.ts';
import { BlobWriter, readBlob } from '../../engine/control/blob.ts';
import { Files } from '../../engine/control/files.ts';
import { sweepTenant } from '../../engine/control/sweep.ts';
import { timeOf } from '../../engine/control/ids.ts';
import { NativeShelf } from '../../engine/control/native-shelf.ts';
import { EngineError } from '../../engine/core/errors.ts';
import { LIMITS } from '../../engine/core/limits.ts';
import { eraseJob } from '../../engine/kv/erase.ts';
import { batchOfChats } from '../../functions/openai/batch-endpoints.ts';
import { SPEC, TENANT, platformOn, runToEnd } from './support.ts';

const shelf = new NativeShelf();
afterAll(() => shelf[Symbol.dispose]());

const me = { tenant: TENANT };
const URL = '/v1/chat/completions';
const NOON = Date.UTC(2026, 10, 25, 12);
const LINES = 3;
const INPUT = Buffer.from(Array.from({ length: LINES }, (_, i) =>
  `${JSON.stringify({ custom_id: `line-${i}`, method: 'POST', url: URL, body: { model: 'countdown@cr2', messages: [{ role: 'user', content: '4 20 8 13 target 59' }], seed: i, max_tokens: 2 } })}\n`).join(''));

/** An instance of its own on `store`. */
function instanceOn(store: MemoryStore, { nowMs = () => NOON, troubles = [] as unknown[] } = {}) {
  const { platform, queue } = platformOn(store, shelf, { nowMs });
  const files = new Files({ store, keys: null, nowMs });
  const batches = new Batches({ store, keys: null, files, platform, endpoints: [batchOfChats(platform)], nowMs, waitMs: 30_000, onTrouble: (_, error) => troubles.push(error) });
  return { files, batches, platform, queue, create: async () => await batches.create({ ...me, endpoint: URL, inputFileId: (await files.create(INPUT, { ...me, filename: 'in.jsonl' })).id, metadata: null }) };
}

async function textOf(files: Files, id: string | null): Promise<string> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of (await files.read(id ?? '', me)).content) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

/** Lines without the ids, which differ from batch to batch. */
const answersIn = (text: string) => text.replaceAll(/(batch_req_|chatcmpl-)?[0-9A-HJKMNP-TV-Z]{26}/g, '');

async function runJobs(store: MemoryStore, { id }: BatchView): Promise<void> {
  for (let i = 0; i < LINES; i++) await runToEnd(store, lineJobId(id, i));
}

const isOurs = ({ key }: Operation) => key.startsWith('batches/') || key.startsWith('files/');

test('the jobs of a batch wait behind everything interactive', async () => {
  const { create, queue, platform } = instanceOn(new MemoryStore());
  await create();
  await platform.submit(SPEC, me);
  expect(queue.sent.map(({ priority }) => priority)).toEqual([...Array.from({ length: LINES }, () => 'batch'), undefined]);
});

describe('a batch whose store fails once', () => {
  /** Asked again and again, as a client does, from one instance and then from another. */
  async function through(fault: Fault | null, at: number): Promise<{ readonly answers: string; readonly operations: readonly Operation[] }> {
    const operations: Operation[] = [];
    const store = new MemoryStore({
      faults: (operation) => {
        if (!isOurs(operation)) return null;
        operations.push(operation);
        return operations.length - 1 === at ? fault : null;
      },
    });
    const again = async <T>(ask: (instance: ReturnType<typeof instanceOn>) => Promise<T>) => {
      const [first, second] = [instanceOn(store), instanceOn(store)];
      return await ask(first).catch(async () => await ask(second));
    };
    const begun = await again(async ({ create }) => await create());
    const made = await again(async ({ batches }) => await batches.get(begun.id, me));
    expect(made).toMatchObject({ status: 'in_progress', counts: { total: LINES, completed: 0, failed: 0 } });
    await runJobs(store, begun);
    await again(async ({ batches }) => await batches.get(begun.id, me));
    const ended = await again(async ({ batches }) => await batches.get(begun.id, me));
    expect(ended).toMatchObject({ status: 'completed', counts: { total: LINES, completed: LINES, failed: 0 }, errorFileId: null });
    const answers = answersIn(await again(async ({ files }) => await textOf(files, ended.outputFileId)));
    return { answers, operations };
  }

  test('at any operation, in any way, ends with the same answers', async () => {
    const quiet = await through(null, -1);
    expect(quiet.answers.match(/line-\d/g)).toEqual(['line-0', 'line-1', 'line-2']);
    const cases = quiet.operations.flatMap(({ kind, condition }, at): (readonly [Fault, number])[] => [
      [{ kind: 'fail' }, at], ...(kind === 'put' ? [[{ kind: 'lost_ack' }, at] as const] : []), ...(condition === null ? [] : [[{ kind: 'refuse' }, at] as const]),
    ]);
    expect(cases.length).toBeGreaterThan(40);
    for (const [fault, at] of cases) {
      expect((await through(fault, at)).answers, `${fault.kind} at ${at}: ${JSON.stringify(quiet.operations[at])}`).toBe(quiet.answers);
    }
  });
});

test('a day after it was made a batch expires: what was answered stays, the rest is cancelled and says so', async () => {
  const store = new MemoryStore();
  let now = NOON;
  const { batches, files, create } = instanceOn(store, { nowMs: () => now });
  const { id, expiresMs } = await create();
  expect(expiresMs).toBe(NOON + WINDOW_MS);
  await runToEnd(store, lineJobId(id, 1));
  now = NOON + WINDOW_MS - 1;
  expect(await batches.get(id, me)).toMatchObject({ status: 'in_progress', counts: { completed: 1 } });
  now = NOON + WINDOW_MS;
  const expired = await batches.get(id, me);
  expect(expired).toMatchObject({ status: 'expired', endedMs: now, counts: { total: LINES, completed: 1, failed: 2 } });
  expect((await textOf(files, expired.outputFileId)).match(/line-\d/g)).toEqual(['line-1']);
  expect((await textOf(files, expired.errorFileId)).match(/line-\d|batch_expired/g)).toEqual(['line-0', 'batch_expired', 'line-2', 'batch_expired']);
  const states = await Promise.all([0, 1, 2].map(async (i) => (await platformOn(store, shelf).platform.get(lineJobId(id, i), me)).state));
  expect(states).toEqual(['cancelled', 'done', 'cancelled']);
});

test('a job that its tenant erased is an error line, and is not made again', async () => {
  const store = new MemoryStore();
  const { batches, files, create } = instanceOn(store);
  const begun = await create();
  await runJobs(store, begun);
  await eraseJob(store, { ...me, job: lineJobId(begun.id, 0) });
  const ended = await batches.get(begun.id, me);
  expect(ended).toMatchObject({ status: 'completed', counts: { total: LINES, completed: 2, failed: 1 } });
  expect(JSON.parse(await textOf(files, ended.errorFileId))).toMatchObject({ custom_id: 'line-0', response: { status_code: 404, body: { error: { code: 'job_not_found' } } }, error: null });
});

test('where the models are gone a batch waits for a machine that has them, and says why', async () => {
  const store = new MemoryStore();
  const troubles: unknown[] = [];
  const { batches, files, create, platform } = instanceOn(store, { troubles });
  const begun = await create();
  await runJobs(store, begun);
  const poor = new Batches({
    store, keys: null, files, platform, waitMs: 30_000, nowMs: () => NOON, onTrouble: (_, error) => troubles.push(error),
    endpoints: [{ ...batchOfChats(platform), parse: async () => await Promise.reject(new EngineError('ERR_MODEL_NOT_FOUND', 'No model of that name.')) }],
  });
  expect((await poor.get(begun.id, me)).status).toBe('finalizing');
  expect(troubles).toHaveLength(1);
  expect((await batches.get(begun.id, me)).status).toBe('completed');
});

test('the job of a line is a ULID of the batch\'s time, never the same for two lines or batches', () => {
  const batch = 'batch_01J9ZK0T9WQ2Y4ZJ4N5T6V7X8Y';
  const ids = ['batch_01J9ZK0T9WQ2Y4ZJ4N5T6V7X8Z', batch].flatMap((of) => Array.from({ length: LIMITS.BATCH_LINES_MAX }, (_, i) => lineJobId(of, i)));
  expect(new Set(ids).size).toBe(2 * LIMITS.BATCH_LINES_MAX);
  expect(new Set(ids.map(timeOf))).toEqual(new Set([timeOf(batch.slice('batch_'.length))]));
  expect(lineJobId(batch, 7)).toBe(lineJobId(batch, 7));
});

test('bytes that are not UTF-8 are no lines', async () => {
  expect((await parseLines(Uint8Array.of(0x7b, 0xff, 0x7d), URL)).faults).toMatchObject([{ code: 'invalid_encoding', line: null }]);
});

describe('a sealed blob', () => {
  const keys = new KeyFile(Buffer.alloc(32, 7));
  const bytes = Buffer.alloc(2 * LIMITS.FILE_PIECE_BYTES + 5, 'abc');

  async function written() {
    const place = { store: new MemoryStore(), keys, tenant: TENANT, id: 'file-1', prefix: 'files/acme/file-1/' };
    const writer = await BlobWriter.open(place);
    await writer.add(bytes.subarray(0, 3));
    await writer.add(bytes.subarray(3));
    return { place, blob: await writer.close() };
  }
  const read = async (...[place, blob]: Parameters<typeof readBlob>) => {
    const chunks: Uint8Array[] = [];
    for await (const chunk of readBlob(place, blob)) chunks.push(chunk);
    return Buffer.concat(chunks);
  };

  test('comes back as it was', async () => {
    const { place, blob } = await written();
    expect((await read(place, blob)).equals(bytes)).toBe(true);
  });

  test('with two pieces exchanged, cut off at a piece, of another tenant, or under another key is refused', async () => {
    const { place, blob } = await written();
    const { store } = place;
    const piece = (i: number) => `${place.prefix}${blob.nonce}-${i}`;
    await expect(read(place, { ...blob, bytes: LIMITS.FILE_PIECE_BYTES })).rejects.toMatchObject({ code: 'ERR_CHECKPOINT' });
    await expect(read({ ...place, tenant: 'other' }, blob)).rejects.toMatchObject({ code: 'ERR_KEY' });
    await expect(read({ ...place, id: 'file-2' }, blob)).rejects.toMatchObject({ code: 'ERR_KEY' });
    await expect(read({ ...place, keys: null }, blob)).rejects.toMatchObject({ code: 'ERR_KEY' });
    await expect(read(place, { ...blob, key: null })).rejects.toMatchObject({ code: 'ERR_KEY' });
    await expect(read({ ...place, keys: new KeyFile(Buffer.alloc(32, 8)) }, blob)).rejects.toMatchObject({ code: 'ERR_KEY' });
    await store.copy(piece(0), piece(1));
    await expect(read(place, blob)).rejects.toMatchObject({ code: 'ERR_CHECKPOINT' });
    await store.delete([piece(1)]);
    await expect(read(place, blob)).rejects.toThrow('missing');
  });
});

describe('a walk', () => {
  test('ends a batch that nobody asks for, of whichever tenant, and leaves no copy of its prompts', async () => {
    const store = new MemoryStore();
    const begun = await instanceOn(store).create();
    await runJobs(store, begun);
    const walker = instanceOn(store);
    await walker.batches.walk();
    const keys = [...store.snapshot().keys()];
    expect(keys.filter((key) => key.startsWith('open/'))).toEqual([]);
    expect(keys.filter((key) => key.startsWith('batches/')).map((key) => key.split('/').at(-1)).sort()).toEqual(['batch.json', 'end.json', 'verdict.json']);
    expect((await walker.batches.list({ ...me, limit: 1 })).batches[0]).toMatchObject({ status: 'completed', counts: { completed: LINES } });
  });

  test('goes on with the others when one batch cannot be read, and comes again', async () => {
    const store = new MemoryStore();
    const troubles: unknown[] = [];
    const { batches, create } = instanceOn(store, { troubles });
    const [broken, whole] = [await create(), await create()];
    await store.put(`batches/${TENANT}/${broken.id}/batch.json`, [Buffer.from('{')]);
    await runJobs(store, whole);
    await batches.walk();
    expect(troubles).toHaveLength(1);
    expect(await batches.get(whole.id, me)).toMatchObject({ status: 'completed' });
    expect([...store.snapshot().keys()].filter((key) => key.startsWith('open/'))).toEqual([`open/batches/${TENANT}/${broken.id}`]);
  });

  test('that is told to stop does not wait for the batch that it moves', async () => {
    const store = new MemoryStore();
    const { batches, create } = instanceOn(store);
    await create();
    const stop = new AbortController();
    // A store that never answers, and heeds no signal.
    Object.assign(store, { get: () => new Promise(() => setImmediate(() => stop.abort())) });
    await expect(batches.walk({ signal: stop.signal })).rejects.toMatchObject({ code: 'ERR_CANCELLED' });
  });

  test('forgets a batch whose creator died before it was made', async () => {
    const store = new MemoryStore();
    let now = NOON;
    const { batches, create } = instanceOn(store, { nowMs: () => now });
    const { id } = await create();
    await store.delete([`batches/${TENANT}/${id}/batch.json`]);
    await batches.walk();
    expect(store.snapshot().has(`open/batches/${TENANT}/${id}`)).toBe(true);
    now += 2 * 3_600_000;
    await batches.walk();
    expect(store.snapshot().has(`open/batches/${TENANT}/${id}`)).toBe(false);
  });
});

describe('an Idempotency-Key', () => {
  const ask = { ...me, endpoint: URL, metadata: { a: 'b' } };

  test('makes one file and one batch of two requests, also across a crash between its steps', async () => {
    const store = new MemoryStore();
    const { files, batches } = instanceOn(store);
    const upload = async () => await files.create(INPUT, { ...me, filename: 'in.jsonl', idempotencyKey: 'k' });
    const file = await upload();
    expect(await upload()).toEqual(file);
    await expect(files.create(INPUT, { ...me, filename: 'other.jsonl', idempotencyKey: 'k' })).rejects.toMatchObject({ code: 'ERR_JOB_CONFLICT' });
    const start = async (inputFileId = file.id, instance = batches) => await instance.create({ ...ask, inputFileId, idempotencyKey: 'k' });
    // The claim is there, the batch is not.
    const crashing = instanceOn(store);
    await expect(start(`file-${'0'.repeat(26)}`, crashing.batches)).rejects.toMatchObject({ code: 'ERR_FILE_NOT_FOUND' });
    await expect(start()).rejects.toMatchObject({ code: 'ERR_JOB_CONFLICT' });
    const made = await batches.create({ ...ask, inputFileId: file.id, idempotencyKey: 'l' });
    await files.delete(file.id, me);
    expect(await instanceOn(store).batches.create({ ...ask, inputFileId: file.id, idempotencyKey: 'l' })).toMatchObject({ id: made.id });
    expect((await batches.list({ ...me, limit: 10 })).batches.map(({ id }) => id)).toEqual([made.id]);
    await expect(batches.create({ ...ask, metadata: { a: 'c' }, inputFileId: file.id, idempotencyKey: 'l' })).rejects.toMatchObject({ code: 'ERR_JOB_CONFLICT' });
  });
});

test('collecting garbage takes what no record names, from whoever died, and nothing else', async () => {
  const store = new MemoryStore();
  const { files, batches, create } = instanceOn(store);
  const file = await files.create(INPUT, { ...me, filename: 'kept.jsonl' });
  const living = await create();
  const before = new Set(store.snapshot().keys());
  expect(await sweepTenant(store, TENANT, { nowMs: () => NOON + 100 * WINDOW_MS })).toEqual({ objects: 0, bytes: 0 });
  // An upload that died, a piece of who was second to publish, the input of a batch that ended, the output of one that has not.
  const dead = `files/${TENANT}/file-${file.id.slice(5, 20)}ZZZZZZZZZZZ/0011223344556677-0`;
  const second = `files/${TENANT}/${file.id}/0011223344556677-0`;
  const unborn = `batches/${TENANT}/batch_${file.id.slice(5, 20)}ZZZZZZZZZZZ/0011223344556677-0`;
  const writing = `files/${TENANT}/file-${living.id.slice(6)}-output/0011223344556677-0`;
  for (const key of [dead, second, unborn, writing]) await store.put(key, [Buffer.from('prompt')]);
  expect(await sweepTenant(store, TENANT, { nowMs: () => NOON + 1, dryRun: true })).toEqual({ objects: 1, bytes: 6 });
  const gone: string[] = [];
  expect(await sweepTenant(store, TENANT, { nowMs: () => NOON + 3 * WINDOW_MS, onGarbage: (key) => void gone.push(key) })).toEqual({ objects: 3, bytes: 18 });
  expect(gone.sort()).toEqual([unborn, dead, second].sort());
  expect(new Set(store.snapshot().keys())).toEqual(new Set([...before, writing]));
  await runJobs(store, living);
  const ended = await batches.get(living.id, me);
  await store.put(`batches/${TENANT}/${living.id}/0011223344556677-0`, [Buffer.from('left')]);
  expect(await sweepTenant(store, TENANT)).toMatchObject({ objects: 2 });
  expect(await textOf(files, ended.outputFileId)).toContain('line-0');
});

test('a batch that is refused keeps no copy of its prompts, and a file that is deleted leaves nothing', async () => {
  const store = new MemoryStore();
  const { files, batches } = instanceOn(store);
  const { id } = await files.create(Buffer.from('{"no":"line"}\n'), { ...me, filename: 'in.jsonl' });
  const refused = await batches.create({ ...me, endpoint: URL, inputFileId: id, metadata: null });
  expect(refused.status).toBe('failed');
  await store.put(`files/${TENANT}/${id}/0011223344556677-0`, [Buffer.from('of a writer who came second')]);
  await files.delete(id, me);
  expect([...store.snapshot().keys()].sort()).toEqual([`batches/${TENANT}/${refused.id}/batch.json`, `batches/${TENANT}/${refused.id}/verdict.json`]);
});
