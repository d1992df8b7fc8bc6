/** What the S3 adapter makes of a bad line and of bad stores: a proxy between it and a real server misbehaves. */
import { ListMultipartUploadsCommand } from '@aws-sdk/client-s3';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';

import type { S3Store, S3StoreOptions } from '../../engine/adapters/s3.ts';
import { HastyClock, ManualClock } from '../helpers/clock.ts';
import type { S3Peer } from '../helpers/s3-peer.ts';
import { startProxy, type Misdeed, type S3Proxy, type Seen } from '../helpers/s3-proxy.ts';
import { read, text } from './object-store.ts';

const MIB = 1 << 20;
const LIMIT = { bytesMax: 256 * MIB };
const ABSENT = { condition: { kind: 'if_absent' } } as const;
const PAUSE_MS_MAX = 5_000;

export function describeS3Faults(name: string, start: (() => Promise<S3Peer>) | null): void {
  describe.skipIf(start === null)(`faults before ${name}`, () => {
    let peer: S3Peer;
    let proxy: S3Proxy;
    beforeAll(async () => {
      if (start === null) return;
      peer = await start();
      proxy = await startProxy(peer);
    });
    afterAll(async () => {
      await (proxy as S3Proxy | undefined)?.[Symbol.asyncDispose]();
      await (peer as S3Peer | undefined)?.[Symbol.asyncDispose]();
    });
    beforeEach(() => {
      proxy.misdeed = () => ({ kind: 'pass' });
    });

    const behind = (changes: Partial<S3StoreOptions> = {}): S3Store => peer.store({ endpoint: proxy.endpoint, ...changes });
    /** The misdeeds one after another for the requests that fit; then none. Returns how many such requests came. */
    function misbehave(fits: (request: Seen) => boolean, ...misdeeds: readonly Misdeed[]): () => number {
      let count = 0;
      proxy.misdeed = (request) => (fits(request) ? (misdeeds[count++] ?? { kind: 'pass' }) : { kind: 'pass' });
      return () => count;
    }
    const always = (misdeed: Misdeed): readonly Misdeed[] => new Array<Misdeed>(1_000).fill(misdeed);
    const method = (wanted: string) => (request: Seen) => request.method === wanted;

    test('a conditional put whose reply is lost is unknown, was sent once, and its object is there', async () => {
      const store = behind();
      const count = misbehave(method('PUT'), { kind: 'drop_reply' });
      expect(await store.put('HEAD', text('mine'), ABSENT)).toMatchObject({ kind: 'unknown' });
      expect(count()).toBe(1);
      expect(await read(store, 'HEAD')).toBe('mine');
      expect(await store.put('HEAD', text('other'), ABSENT)).toEqual({ kind: 'refused' });
    });

    test('a conditional put that never reached the store is unknown too, and sent once', async () => {
      const store = behind();
      for (const misdeed of [{ kind: 'answer', status: 500, code: 'InternalError' }, { kind: 'answer', status: 503, code: 'SlowDown' }] as const) {
        const count = misbehave(method('PUT'), misdeed);
        expect(await store.put('HEAD', text('mine'), ABSENT)).toMatchObject({ kind: 'unknown' });
        expect(count()).toBe(1);
        expect(await store.head('HEAD')).toBeNull();
      }
    });

    test('a conditional put that is never answered is unknown when its time is up', async () => {
      const clock = new ManualClock();
      const store = behind({ clock });
      const count = misbehave(method('PUT'), { kind: 'hang' });
      const outcome = store.put('HEAD', text('mine'), ABSENT);
      while (count() === 0) await clock.settle();
      clock.advance(20_000);
      expect(await outcome).toMatchObject({ kind: 'unknown' });
    });

    test('409 and 412 are refusals', async () => {
      const store = behind();
      for (const [status, code] of [[409, 'ConditionalRequestConflict'], [412, 'PreconditionFailed']] as const) {
        misbehave(method('PUT'), { kind: 'answer', status, code });
        expect(await store.put('HEAD', text('mine'), ABSENT)).toEqual({ kind: 'refused' });
      }
    });

    test('an unconditional put whose reply is lost is sent again', async () => {
      const store = behind();
      const count = misbehave(method('PUT'), { kind: 'drop_reply' }, { kind: 'answer', status: 500, code: 'InternalError' });
      expect(await store.put('object', text('x'))).toMatchObject({ kind: 'written' });
      expect(count()).toBe(3);
      expect(await read(store, 'object')).toBe('x');
    });

    test('a body that breaks off, or ends early without a word, is read again', async () => {
      const store = behind();
      const wanted = Buffer.alloc(20 * MIB, 7);
      await store.put('object', [wanted]);
      for (const politely of [false, true]) {
        const count = misbehave(method('GET'), { kind: 'cut_body', bytes: 1_000, politely }, { kind: 'pass' }, { kind: 'cut_body', bytes: 0, politely });
        expect(Buffer.concat((await store.get('object', LIMIT))?.chunks ?? []).equals(wanted)).toBe(true);
        expect(count()).toBe(4);
        // Into the same memory as what had broken off.
        const into = Buffer.alloc(MIB);
        const again = misbehave(method('GET'), { kind: 'cut_body', bytes: 1_000, politely });
        const [part] = (await store.get('object', { ...LIMIT, range: { offset: 5, bytes: MIB }, into }))?.chunks ?? [];
        expect(part?.buffer).toBe(into.buffer);
        expect(into.equals(wanted.subarray(5, 5 + MIB))).toBe(true);
        expect(again()).toBe(2);
      }
    });

    test('a storm of 503: pauses grow with full jitter to a bound, and the deadline ends it', async () => {
      const clock = new HastyClock(PAUSE_MS_MAX);
      const store = behind({ clock, random: () => 0.999, deadlineMs: 60_000 });
      const count = misbehave(method('GET'), ...always({ kind: 'answer', status: 503, code: 'SlowDown' }));
      await expect((async () => { for await (const _ of store.list('')); })()).rejects.toMatchObject({ code: 'ERR_STORE', message: expect.stringContaining('503 SlowDown') as string });
      expect(clock.nowMs()).toBeLessThanOrEqual(60_000);
      expect(clock.nowMs()).toBeGreaterThan(50_000);
      // 50 ms doubled to 5 s, then 5 s: 7 + about 10.
      expect(count()).toBeLessThanOrEqual(20);
      expect(clock.pausesMs.every((pause, i, all) => i === 0 || pause >= (all[i - 1] ?? 0))).toBe(true);
      expect(Math.max(...clock.pausesMs)).toBeLessThanOrEqual(PAUSE_MS_MAX);
    });

    test('a short storm passes unnoticed', async () => {
      const store = behind({ random: () => 0 });
      await store.put('object', text('x'));
      const count = misbehave(() => true, ...new Array<Misdeed>(6).fill({ kind: 'answer', status: 503, code: 'SlowDown' }));
      expect(await read(store, 'object')).toBe('x');
      expect(count()).toBe(7);
    });

    test('a cancelled call ends in the middle of a pause and in the middle of a hang', async () => {
      const clock = new ManualClock();
      const store = behind({ clock, random: () => 0.5 });
      for (const misdeed of [{ kind: 'answer', status: 503, code: 'SlowDown' }, { kind: 'hang' }] as const) {
        const controller = new AbortController();
        const count = misbehave(method('GET'), misdeed, misdeed);
        const reading = store.get('object', { ...LIMIT, signal: controller.signal });
        while (count() === 0) await clock.settle();
        await clock.settle();
        controller.abort();
        await expect(reading).rejects.toMatchObject({ code: 'ERR_CANCELLED' });
      }
    });

    test('a body that is damaged on its way is refused by the store and sent again, one too large to be hashed and a part of an upload too', async () => {
      const store = behind({ random: () => 0 });
      for (const bytes of [MIB, 70 * MIB]) {
        const count = misbehave(({ method: verb, url }) => verb === 'PUT' && (bytes === MIB || url.includes('partNumber=2')), { kind: 'damage' });
        const body = Buffer.alloc(bytes, 7);
        expect(await store.put('large', [body])).toMatchObject({ kind: 'written' });
        expect(count()).toBe(2);
        expect(Buffer.concat((await store.get('large', LIMIT))?.chunks ?? []).equals(body)).toBe(true);
      }
    });

    test('the whole object for a range is never taken for the range', async () => {
      const store = behind({ clock: new HastyClock(PAUSE_MS_MAX), random: () => 0.9, deadlineMs: 20_000 });
      await store.put('object', text('0123456789'));
      misbehave(method('GET'), { kind: 'whole_body' });
      const part = await store.get('object', { ...LIMIT, range: { offset: 2, bytes: 3 } });
      expect(Buffer.concat(part?.chunks ?? []).toString()).toBe('234');
      misbehave(method('GET'), ...always({ kind: 'whole_body' }));
      await expect(store.get('object', { ...LIMIT, range: { offset: 2, bytes: 3 } })).rejects.toMatchObject({ code: 'ERR_STORE' });
    });

    test('an object that is overwritten between two of its ranges is read again, of one version', async () => {
      const store = behind();
      await store.put('object', [Buffer.alloc(40 * MIB, 1)]);
      let ranges = 0;
      const direct = peer.store({ prefix: store.url.slice(`s3://${peer.bucket}/`.length) });
      let overwritten: Promise<unknown> = Promise.resolve();
      proxy.misdeed = ({ method: verb, conditional }) => {
        // After the first range has said which version it is of, and before the others are answered.
        if (verb === 'GET' && conditional && ranges++ === 0) overwritten = direct.put('object', [Buffer.alloc(40 * MIB, 2)]);
        return verb === 'GET' && conditional && ranges === 1 ? { kind: 'answer', status: 412, code: 'PreconditionFailed' } : { kind: 'pass' };
      };
      const body = Buffer.concat((await store.get('object', LIMIT))?.chunks ?? []);
      await overwritten;
      expect(body.equals(Buffer.alloc(40 * MIB, body[0]))).toBe(true);
    });

    test('a store that ignores conditions is refused by the probe', async () => {
      proxy.misdeed = () => ({ kind: 'no_conditions' });
      await expect(behind().probe()).rejects.toMatchObject({ code: 'ERR_STORE_CONFIG', message: expect.stringContaining('If-None-Match') as string });
      proxy.misdeed = ({ method: verb, conditional }) => (verb === 'PUT' && conditional && proxy.seen.filter((one) => one.conditional).length > 2 ? { kind: 'no_conditions' } : { kind: 'pass' });
      await expect(behind().probe()).rejects.toMatchObject({ code: 'ERR_STORE_CONFIG' });
      proxy.misdeed = () => ({ kind: 'pass' });
      await behind().probe();
      proxy.misdeed = ({ conditional }) => (conditional ? { kind: 'answer', status: 501, code: 'NotImplemented' } : { kind: 'pass' });
      await expect(behind().probe()).rejects.toMatchObject({ code: 'ERR_STORE_CONFIG' });
    });

    test('a multipart upload survives lost parts and a lost completion, and one that fails leaves no parts', async () => {
      const store = behind();
      const wanted = Buffer.alloc(65 * MIB, 3);
      misbehave(({ url }) => url.includes('partNumber=2'), { kind: 'drop_reply' }, { kind: 'answer', status: 503, code: 'SlowDown' });
      expect(await store.put('parts', [wanted])).toMatchObject({ kind: 'written' });
      misbehave(({ method: verb, url }) => verb === 'POST' && /uploadId=/.test(url), { kind: 'drop_reply' });
      expect(await store.put('completed', [wanted])).toMatchObject({ kind: 'written' });
      expect(await store.head('completed')).toMatchObject({ bytes: wanted.byteLength });
      // A store that forgets an upload once it is completed; and one that has forgotten one that never was.
      const forgotten = { kind: 'answer', status: 404, code: 'NoSuchUpload' } as const;
      const completion = ({ method: verb, url }: Seen) => verb === 'POST' && /uploadId=/.test(url);
      misbehave(completion, { kind: 'drop_reply' }, forgotten);
      expect(await store.put('completed', [wanted])).toMatchObject({ kind: 'written' });
      misbehave(completion, forgotten);
      await expect(store.put('completed', [wanted])).rejects.toMatchObject({ code: 'ERR_STORE' });
      misbehave(({ url }) => url.includes('partNumber=3'), ...always({ kind: 'answer', status: 403, code: 'AccessDenied' }));
      await expect(store.put('denied', [wanted])).rejects.toMatchObject({ code: 'ERR_STORE_CONFIG' });
      // And as if a part had come after the first abort.
      const isPartOrAbort = ({ method: verb, url }: Seen) => url.includes('partNumber=3') || (verb === 'DELETE' && /uploadId=/.test(url));
      misbehave(isPartOrAbort, { kind: 'answer', status: 403, code: 'AccessDenied' }, { kind: 'answer', status: 204, code: '' });
      await expect(store.put('denied', [wanted])).rejects.toMatchObject({ code: 'ERR_STORE_CONFIG' });
      expect(await store.head('denied')).toBeNull();
      const { Uploads = [] } = await peer.client.send(new ListMultipartUploadsCommand({ Bucket: peer.bucket }));
      expect(Uploads).toEqual([]);
    });

    test('wrong credentials, no such bucket and a region elsewhere are matters of configuration', async () => {
      const config = { code: 'ERR_STORE_CONFIG' };
      await expect(peer.store({ credentials: { accessKeyId: 'nobody', secretAccessKey: 'wrongwrong' } }).put('x', text('x'))).rejects.toMatchObject(config);
      await expect(peer.store({ credentials: { accessKeyId: 'test', secretAccessKey: 'wrongwrong' } }).put('x', text('x'), ABSENT)).rejects.toMatchObject(config);
      await expect(read(peer.store({ bucket: 'no-such-bucket' }), 'x')).rejects.toMatchObject(config);
      misbehave(() => true, { kind: 'answer', status: 301, code: 'PermanentRedirect' });
      await expect(read(behind(), 'x')).rejects.toMatchObject(config);
    });

    test('an endpoint that is not there is an error when the deadline comes', async () => {
      const store = peer.store({ endpoint: 'http://127.0.0.1:1', clock: new HastyClock(PAUSE_MS_MAX), deadlineMs: 10_000 });
      await expect(read(store, 'x')).rejects.toMatchObject({ code: 'ERR_STORE' });
    });
  });
}
