/** One large cut of a real cache, out of the engine into a store and back: rates against memory copies and plain ranged GETs. */
import { createHash } from 'node:crypto';

import { GetObjectCommand, type S3Client } from '@aws-sdk/client-s3';

import { inParallel } from '../../engine/core/waiting.ts';
import { memoryFor } from '../../engine/job/restore.ts';
import type { Session } from '../../engine/job/session.ts';
import type { Body, ObjectStore } from '../../engine/ports/object-store.ts';
import type { NativeRun, PreparedMemory, SavedObject } from '../../engine/runtime/native.ts';
import { type StoppedRun, stoppedRun, UNSEALED } from './cuts.ts';
import { VARIANTS } from './jobs.ts';
import { median, timed } from './statistics.ts';

const READS_AT_ONCE = 8;
const RANGE_BYTES = 16 << 20;

/** GB (1e9) of stored bytes in a second; medians. */
export interface Transfer {
  readonly store: string;
  readonly bytes: number;
  readonly objects: number;
  readonly chains: number;
  readonly tokens: number;
  readonly threads: number;
  /** Within memory that is there; into fresh memory. */
  readonly memcpy: number;
  readonly memcpy_to_fresh: number;
  readonly sha256: number;
  readonly put: number;
  readonly get: number;
  /** Plain ranged GETs of the same objects by the SDK alone; null: not S3. */
  readonly plain_get: number | null;
  /** restoreRun of what has been read: verified and in place. */
  readonly restore_crc: number;
  readonly restore_digest: number;
  /** Read and restored, digests checked, as a resume does it: into memory that is made present meanwhile; and without that. */
  readonly read_restore: number;
  readonly read_restore_unprepared: number;
  /** Time of the first over that of the plain GETs. */
  readonly over_plain: number | null;
}

export interface PlainAccess {
  readonly client: S3Client;
  readonly bucket: string;
  readonly prefix: string;
}

interface Target {
  readonly name: string;
  readonly store: ObjectStore;
  readonly plain: PlainAccess | null;
}

export interface TransferSize {
  readonly chains: number;
  readonly tokens: number;
  readonly threads: number;
  readonly rounds: number;
}

/** Dense, so that most of it are sealed pages. */
export async function transferOf(session: Session, target: Target, { chains, tokens, threads, rounds }: TransferSize, signal: AbortSignal): Promise<Transfer> {
  const [variant] = VARIANTS;
  if (variant === undefined) throw new Error('no variant');
  using stopped = await stoppedRun(session, variant, tokens, chains, threads, signal);
  const { objects } = await stopped.run.save({ ...UNSEALED, delta: true, epoch: 1, n: 0, codec: 'raw' });
  const bytes = objects.reduce((sum, object) => sum + object.bytes.byteLength, 0);
  const keys = objects.map((_, i) => `transfer/${i}`);
  const segments = objects.flatMap(({ kind, bytes: { byteLength } }) => (kind === 'segment' ? [{ bytes: byteLength }] : []));
  const room = Buffer.alloc(bytes, 1);
  const rates = new Map<string, number[]>();
  const measure = async <T>(name: string, work: () => Promise<T> | T): Promise<T> => {
    const { value, ms } = await timed(work);
    rates.set(name, [...(rates.get(name) ?? []), ms]);
    return value;
  };
  for (let round = 0; round < rounds; round++) {
    signal.throwIfAborted();
    await measure('memcpy', () => copyAll(objects, room));
    await measure('memcpy_to_fresh', () => copyAll(objects, Buffer.allocUnsafeSlow(bytes)));
    await measure('sha256', () => objects.forEach(({ bytes: content }) => createHash('sha256').update(content).digest()));
    await measure('put', () => inParallel(objects.length, READS_AT_ONCE, signal, async (i) => target.store.put(keys[i] ?? '', [objects[i]?.bytes ?? new Uint8Array()])));
    const { plain } = target;
    if (plain !== null) await measure('plain_get', () => inParallel(objects.length, READS_AT_ONCE, signal, async (i) => plainGet(plain, keys[i] ?? '', objects[i]?.bytes.byteLength ?? 0)));
    const bodies = await measure('get', () => inParallel(objects.length, READS_AT_ONCE, signal, async (i) => getAll(target.store, keys[i] ?? '', objects[i]?.bytes.byteLength ?? 0)));
    const restoring = async (name: string, restore: () => Promise<NativeRun>) => {
      using restored = await measure(name, restore);
      await restored.prefill(signal);
      if (restored.report().caughtUp !== 0) throw new Error('the restored run computed tokens again');
    };
    for (const checkDigests of [false, true]) {
      await restoring(checkDigests ? 'restore_digest' : 'restore_crc', () => restoreFrom(stopped, objects, bodies, { checkDigests, memory: null }));
    }
    for (const prepares of round % 2 === 0 ? [true, false] : [false, true]) {
      await restoring(prepares ? 'read_restore' : 'read_restore_unprepared', async () => {
        using memory = prepares ? memoryFor(stopped.engine, stopped.options, segments, chains) : null;
        const read = await inParallel(objects.length, READS_AT_ONCE, signal, async (i) => getAll(target.store, keys[i] ?? '', objects[i]?.bytes.byteLength ?? 0));
        return await restoreFrom(stopped, objects, read, { checkDigests: true, memory });
      });
    }
  }
  const ms = (name: string) => median(rates.get(name) ?? []);
  const rate = (name: string) => bytes / ms(name) / 1e6;
  const plain = target.plain === null ? null : rate('plain_get');
  return {
    store: target.name, bytes, objects: objects.length, chains, tokens, threads,
    memcpy: rate('memcpy'), memcpy_to_fresh: rate('memcpy_to_fresh'), sha256: rate('sha256'),
    put: rate('put'), get: rate('get'), plain_get: plain, restore_crc: rate('restore_crc'), restore_digest: rate('restore_digest'),
    read_restore: rate('read_restore'), read_restore_unprepared: rate('read_restore_unprepared'),
    over_plain: plain === null ? null : ms('read_restore') / ms('plain_get'),
  };
}

function copyAll(objects: readonly SavedObject[], room: Buffer): void {
  let at = 0;
  for (const { bytes } of objects) {
    room.set(bytes, at);
    at += bytes.byteLength;
  }
}

async function getAll(store: ObjectStore, key: string, bytes: number): Promise<Body> {
  const found = await store.get(key, { bytesMax: bytes });
  if (found === null) throw new Error(`${key} is gone`);
  return found.chunks;
}

/** What anybody would write with the SDK: the ranges of one object side by side, bodies read to their end. */
async function plainGet({ client, bucket, prefix }: PlainAccess, key: string, bytes: number): Promise<void> {
  const ranges = Array.from({ length: Math.ceil(bytes / RANGE_BYTES) }, (_, i) => [i * RANGE_BYTES, Math.min(bytes, (i + 1) * RANGE_BYTES) - 1]);
  await Promise.all(ranges.map(async ([from, to]) => {
    const { Body } = await client.send(new GetObjectCommand({ Bucket: bucket, Key: `${prefix}/${key}`, Range: `bytes=${from}-${to}` }));
    await Body?.transformToByteArray();
  }));
}

/** Exactly the run that was saved. */
function restoreFrom({ engine, options }: StoppedRun, objects: readonly SavedObject[], bodies: readonly Body[], { checkDigests, memory }: { readonly checkDigests: boolean; readonly memory: PreparedMemory | null }): Promise<NativeRun> {
  const indices = (kind: SavedObject['kind'], chain: number) => objects.flatMap((object, i) => (object.kind === kind && object.chain === chain ? [i] : []));
  return engine.restoreRun({
    run: options,
    objects: objects.map(({ bytes, digest }, i) => ({ chunks: bodies[i] ?? [], bytes: bytes.byteLength, digest, seal: 0 })),
    seals: [UNSEALED],
    checkDigests,
    replay: false,
    ownJournal: true,
    chains: Array.from({ length: options.width }, (_, chain) => ({
      source: chain, tokens: -1, reopen: false, segments: [...indices('segment', -1), ...indices('segment', chain)], tail: indices('tail', chain)[0] ?? null,
    })),
    promptSegments: indices('segment', -1),
    promptTail: null,
    prefix: null,
    journals: indices('journal', -2),
  }, undefined, memory);
}
