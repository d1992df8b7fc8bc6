/** /v1/checkpoints: what is stored of jobs, and that it can be carried elsewhere. */
import { Readable } from 'node:stream';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { MemoryStore } from '../../engine/adapters/memory.ts';
import { importJob } from '../../engine/checkpoint/import.ts';
import { jobPrefix, parseName } from '../../engine/kv/names.ts';
import { type HttpApi, startApi } from '../helpers/http-api.ts';
import { readSse } from '../helpers/sse.ts';

const JOB = { model: 'countdown@cr2', prompt: '7 18 17 7 target 35', sampling: { temperature: 0 }, budget: { width: 2, length: 120 }, early_stop: false };

let api: HttpApi;
beforeAll(async () => {
  api = await startApi();
  for (const id of ['a', 'b', 'c']) await ended(id);
});
afterAll(() => api[Symbol.asyncDispose]());

async function ended(id: string): Promise<void> {
  expect((await fetch(`${api.url}/v1/jobs/${id}`, { method: 'PUT', headers: { 'content-type': 'application/json' }, body: JSON.stringify(JOB) })).status).toBe(200);
  await readSse(await api.get(`/v1/jobs/${id}/events`));
}

interface Checkpoint {
  bytes: number;
  chains: { chain: number; tokens: number; tails: number[] }[];
}

const get = async <T>(path: string): Promise<T> => (await (await api.get(path)).json()) as T;
const objectsOf = (job: string) => [...api.platform.store.snapshot()].filter(([key]) => key.startsWith(jobPrefix({ tenant: 'local', job })));

describe('checkpoints', () => {
  test('are listed page by page, without those that were erased, with what they cost', async () => {
    await ended('aa');
    expect((await fetch(`${api.url}/v1/jobs/aa`, { method: 'DELETE' })).status).toBe(204);
    const first = await get<{ data: { id: string; bytes: number; usd_per_month: number }[]; has_more: boolean }>('/v1/checkpoints?limit=2');
    expect([first.data.map(({ id }) => id), first.has_more]).toEqual([['a', 'b'], true]);
    const bytes = objectsOf('a').reduce((sum, [, content]) => sum + content.byteLength, 0);
    expect(first.data[0]).toMatchObject({ object: 'checkpoint', state: 'done', model: 'countdown@cr2', width: 2, bytes, usd_per_month: (bytes / 2 ** 30) * 0.5, fault: null });
    expect(await get('/v1/checkpoints?after=b')).toMatchObject({ data: [{ id: 'c' }], has_more: false });
    expect((await api.get('/v1/checkpoints?after=nobody')).status).toBe(404);
    expect((await api.get('/v1/checkpoints?limit=1000')).status).toBe(400);
  });

  test('are listed to their end though whoever reads erases every page, and without what never was a job', async () => {
    for (const id of ['page1', 'page2', 'page3', 'page4']) await ended(id);
    // As a crash between spec and head leaves it.
    await api.platform.store.put(`${jobPrefix({ tenant: 'local', job: 'page0' })}spec-${'0'.repeat(64)}.json`, [Buffer.from('{}')]);
    const seen: string[] = [];
    for (let after = 'c'; ;) {
      const { data, has_more: more } = await get<{ data: { id: string }[]; has_more: boolean }>(`/v1/checkpoints?limit=1&after=${after}`);
      after = data.at(-1)?.id ?? '';
      seen.push(...data.map(({ id }) => id));
      for (const { id } of data) expect((await fetch(`${api.url}/v1/jobs/${id}`, { method: 'DELETE' })).status).toBe(204);
      if (!more) break;
    }
    expect(seen).toEqual(['page1', 'page2', 'page3', 'page4']);
  });

  test('say what they consist of, and where a fork computes nothing again', async () => {
    const { bytes, chains, ...rest } = await get<Checkpoint & Record<string, unknown>>('/v1/checkpoints/a');
    expect(rest).toMatchObject({ object: 'checkpoint', id: 'a', state: 'done', sealed: false, missing: [], slices: [{ outcome: 'started', from_step: 0, tokens_recomputed: 0 }], bytes_by_kind: { tail: expect.any(Number) as number } });
    expect(bytes).toBe(objectsOf('a').reduce((sum, [, content]) => sum + content.byteLength, 0));
    expect(chains.map(({ tails, tokens }) => [tails.length, tails.at(-1) === tokens])).toEqual([[2, true], [2, true]]);
    const at = chains[0]?.tails.at(-1) ?? 0;
    const response = await api.post('/v1/checkpoints/a/forks', { id: 'fork', chain: 0, at, length: at + 5 });
    expect([response.status, response.headers.get('location')]).toEqual([201, '/v1/jobs/fork']);
    expect(await response.json()).toMatchObject({ object: 'job', parent: { job: 'a', kind: 'fork' } });
  });

  test('are verified in every byte, and say which is wrong', async () => {
    const verify = async () => (await (await api.post('/v1/checkpoints/b/verify', {})).json()) as object;
    expect(await verify()).toMatchObject({ id: 'b', right: true, complete: true, faults: [] });
    const prefix = jobPrefix({ tenant: 'local', job: 'b' });
    for (const kind of ['tail', 'manifest', 'head']) {
      const [key, bytes] = objectsOf('b').findLast(([name]) => parseName(name.slice(prefix.length))?.kind === kind) ?? ['', new Uint8Array()];
      const wrong = Uint8Array.from(bytes);
      wrong[wrong.length >> 1] = (wrong[wrong.length >> 1] ?? 0) ^ 1;
      await api.platform.store.put(key, [wrong]);
      expect(await verify()).toMatchObject({ right: false, faults: [{ name: key.slice(prefix.length), reason: 'damaged' }] });
      const broken = await api.get('/v1/checkpoints/b/export');
      if (kind === 'tail') await expect(broken.arrayBuffer()).rejects.toThrow();
      else expect(broken.status).toBe(410);
      expect((await api.get('/v1/checkpoints/b')).status).toBe(kind === 'tail' ? 200 : 410);
      expect((await get<{ data: { id: string; fault: string | null }[] }>('/v1/checkpoints')).data.find(({ id }) => id === 'b')?.fault === null).toBe(kind === 'tail');
      await api.platform.store.put(key, [bytes]);
    }
  });

  test('are carried as a file to another store, where the job goes on being what it was', async () => {
    const response = await api.get('/v1/checkpoints/c/export');
    expect([response.status, response.headers.get('content-type')]).toEqual([200, 'application/x-tar']);
    const file = Buffer.from(await response.arrayBuffer());
    const elsewhere = new MemoryStore();
    const { head } = await importJob(elsewhere, 'local', () => Readable.from([file]), { keys: null });
    expect(head).toMatchObject({ job: 'c', state: 'done' });
    // The same version is the same file.
    expect(Buffer.from(await (await api.get('/v1/checkpoints/c/export')).arrayBuffer()).equals(file)).toBe(true);
    // Whoever stops reading holds nothing up.
    const leaving = new AbortController();
    await fetch(`${api.url}/v1/checkpoints/c/export`, { signal: leaving.signal });
    leaving.abort();
    expect((await api.get('/v1/checkpoints/c')).status).toBe(200);
  });

  test('of a job that is not there are problem details', async () => {
    for (const [method, path] of [['GET', ''], ['GET', '/export'], ['POST', '/verify'], ['POST', '/forks']] as const) {
      for (const id of ['nobody', 'aa', '..%2Fa', 'x'.repeat(65)]) {
        const body = path === '/forks' ? { body: JSON.stringify({ chain: 0, at: 1 }), headers: { 'content-type': 'application/json' } } : {};
        const response = await fetch(`${api.url}/v1/checkpoints/${id}${path}`, { method, ...body });
        expect([method, path, id, response.status, response.headers.get('content-type')]).toEqual([method, path, id, 404, 'application/problem+json']);
        expect(await response.json()).toMatchObject({ code: 'job_not_found' });
      }
    }
  });
});
