/**
 * One stored object (docs/CHECKPOINT.md, Objects), read without native code: what native/checkpoint/object_reader.cc does, in its order and
 * with its refusals, for objects that are small. Nothing that the object says of itself is believed before its digest has been checked.
 */
import { blake3 } from '@noble/hashes/blake3.js';

import { hexOf, utf8Of } from '../core/bytes.ts';
import { crc32c } from '../core/crc32c.ts';
import { EngineError } from '../core/errors.ts';
import { checkpointError } from '../kv/reason.ts';
import type { ObjectToVerify, Seal } from '../runtime/native.ts';
import { isPlausible, joinedPlanes } from './planes.ts';

export interface Expected {
  readonly kind: ObjectToVerify['kind'];
  /** 32 hex digits. */
  readonly layoutId: string;
  /** 64 hex digits. */
  readonly digest: string;
  readonly bytes: number;
}

const HEADER_BYTES = 64;
const TRAILER_BYTES = 64;
const ENTRY_BYTES = 48;
const INDEX_ALIGNMENT = 8;
const TAG_BYTES = 16;
const FRAMES_MAX = 1 << 20;
/** Tokens and decisions of 4 million positions and more; a front has 128 MB and up. */
const FRAME_BYTES_MAX = 256 << 20;
const KINDS = ['segment', 'tail', 'journal'] as const;
const UNKEYED = utf8Of('ruminate 2026-11-25 dmskv/1 digest of objects without a key');
const MAGIC = 'dmskv/1\0';
const END = 'dmskvend';
const CODEC = { raw: 0, planesZstd: 1 } as const;

interface Frame {
  readonly offset: number;
  readonly storedBytes: number;
  readonly rawBytes: number;
  readonly codec: number;
  readonly crc32c: number;
  /** The first half, as hex. */
  readonly digest: string;
}

/**
 * The contents of its frames.
 * @param object whole; `seal` holds what it must be keyed and encrypted with.
 * @throws EngineError ERR_CHECKPOINT truncated, damaged, format, layout, identity; ERR_KEY.
 */
export async function readFrames(object: Uint8Array, expected: Expected, seal: Seal): Promise<readonly Uint8Array[]> {
  const { header, view, encrypted, frames } = openObject(object, expected, seal);
  const key = encrypted ? await importKey(seal) : null;
  const contents: Uint8Array[] = [];
  for (const [i, frame] of frames.entries()) {
    const stored = object.subarray(frame.offset, frame.offset + frame.storedBytes);
    const wrong = (what: string) => damaged(`frame ${i} of the ${expected.kind} ${what}`);
    if (crc32c(stored) !== frame.crc32c) throw wrong('has another CRC');
    if (digestOf(seal, stored).slice(0, 32) !== frame.digest) throw wrong('has another digest');
    const coded = key === null ? stored : await decrypt(key, stored, { header, nonce: view, frame: i, context: seal.context, kind: expected.kind });
    const raw = frame.codec === CODEC.raw ? coded : joinedPlanes(coded, frame.rawBytes);
    if (raw === null) throw wrong('does not decode to its length');
    contents.push(raw);
  }
  return contents;
}

function openObject(object: Uint8Array, expected: Expected, seal: Seal) {
  const size = object.byteLength;
  if (size < expected.bytes) throw checkpointError('truncated', `the object has ${size} of its ${expected.bytes} bytes.`);
  if (size > expected.bytes) throw damaged(`the object has ${size} bytes instead of ${expected.bytes}`);
  if (size < HEADER_BYTES + ENTRY_BYTES + TRAILER_BYTES) throw checkpointError('truncated', 'the object is shorter than any.');
  const view = new DataView(object.buffer, object.byteOffset, size);
  const header = object.subarray(0, HEADER_BYTES);
  checkMagic(header, view);
  const indexAt = checkTrailer(object, view, expected, seal);
  const encrypted = checkHeader(view, expected, seal);
  const frames = framesOf(object, view, { indexAt, encrypted, kind: expected.kind });
  return { header, view, encrypted, frames };
}

function checkMagic(header: Uint8Array, view: DataView): void {
  const magic = latin1(header.subarray(0, 8));
  if (!magic.startsWith(MAGIC.slice(0, 6))) throw damaged('this is not an object of a checkpoint');
  if (magic !== MAGIC || view.getUint8(9) !== 1) throw checkpointError('format', 'the object is of a version of dmskv that this build does not read; it reads dmskv/1, version 1.');
}

/** Where the index begins: header and index are what was written. */
function checkTrailer(object: Uint8Array, view: DataView, expected: Expected, seal: Seal): number {
  const at = object.byteLength - TRAILER_BYTES;
  const indexAt = sizeAt(view, at);
  const indexBytes = sizeAt(view, at + 8);
  if (latin1(object.subarray(at + 56)) !== END || view.getUint32(at + 20, true) !== 0 || indexAt === null || indexBytes === null) {
    throw damaged('the object does not end with a trailer');
  }
  const frames = view.getUint32(12, true);
  const fits = frames >= 1 && frames <= FRAMES_MAX && indexBytes === frames * ENTRY_BYTES && indexAt >= HEADER_BYTES && indexAt + indexBytes === at;
  if (!fits) throw damaged('header and trailer of the object do not fit its length');
  const header = object.subarray(0, HEADER_BYTES);
  const index = object.subarray(indexAt, at);
  if (crc32c(index, crc32c(header)) !== view.getUint32(at + 16, true)) throw damaged('header and index of the object have another CRC');
  const digest = hexOf(object.subarray(at + 24, at + 56));
  if (digest !== expected.digest) throw damaged('the object is not the one that the manifest names: it has another digest');
  if (digestOf(seal, header, index) !== digest) throw checkpointError('identity', "header and index of the object were not digested with this tenant's key.");
  return indexAt;
}

/** Whether its frames are encrypted. */
function checkHeader(view: DataView, { kind, layoutId }: Expected, seal: Seal): boolean {
  const number = view.getUint8(8);
  const flags = view.getUint16(10, true);
  const found = KINDS[number - 1];
  if (found === undefined) throw checkpointError('format', `the object is of the unknown kind ${number}.`);
  if ((flags & ~1) !== 0) throw checkpointError('format', `the object has unknown flags: ${flags}.`);
  if (view.getBigUint64(56, true) !== 0n) throw checkpointError('format', "reserved bytes of the object's header are in use.");
  if (view.getInt32(24, true) < -2) throw checkpointError('format', `the object is of chain ${view.getInt32(24, true)}.`);
  if (found !== kind) throw damaged(`the object is a ${found} where a ${kind} should be`);
  if (hexOf(new Uint8Array(view.buffer, view.byteOffset + 40, 16)) !== layoutId) throw checkpointError('layout', `the ${kind} is of another cache layout.`);
  const encrypted = flags === 1;
  if (encrypted && seal.dataKey === null) throw new EngineError('ERR_KEY', `The ${kind} is encrypted, and there is no data key.`);
  // Otherwise whoever can write to the store could put in plain bytes of his own.
  if (!encrypted && seal.dataKey !== null) throw checkpointError('identity', `the ${kind} is not encrypted, and its job is.`);
  return encrypted;
}

/** Each frame begins at the first place it may, so neither a hole nor an overlap can hide anything. */
function framesOf(object: Uint8Array, view: DataView, { indexAt, encrypted, kind }: { readonly indexAt: number; readonly encrypted: boolean; readonly kind: Expected['kind'] }): readonly Frame[] {
  const alignment = kind === 'journal' ? 8 : 4_096;
  const frames: Frame[] = [];
  let end = HEADER_BYTES;
  for (let i = 0; i < view.getUint32(12, true); i++) {
    const at = indexAt + i * ENTRY_BYTES;
    const [offset, storedBytes, rawBytes] = [sizeAt(view, at), sizeAt(view, at + 8), sizeAt(view, at + 16)];
    const codec = view.getUint32(at + 24, true);
    const wrong = (what: string) => damaged(`frame ${i} of the ${kind} ${what}`);
    if (offset === null || storedBytes === null || rawBytes === null) throw wrong('is larger than any');
    if (codec > CODEC.planesZstd) throw checkpointError('format', `frame ${i} has the unknown codec ${codec}.`);
    if (offset !== alignUp(end, alignment) || storedBytes > indexAt - offset) throw wrong('is not where it belongs');
    const codedBytes = storedBytes - (encrypted ? TAG_BYTES : 0);
    if (!(codec === CODEC.raw ? codedBytes === rawBytes : isPlausible(codedBytes, rawBytes))) throw wrong('cannot have the length that the index says');
    if (rawBytes > FRAME_BYTES_MAX) throw new EngineError('ERR_MEMORY', `Frame ${i} of the ${kind} has ${rawBytes} bytes, which only the native engine reads.`);
    if (!isZero(object, end, offset)) throw wrong('has bytes before it that belong to nothing');
    frames.push({ offset, storedBytes, rawBytes, codec, crc32c: view.getUint32(at + 28, true), digest: hexOf(object.subarray(at + 32, at + ENTRY_BYTES)) });
    end = offset + storedBytes;
  }
  if (alignUp(end, INDEX_ALIGNMENT) !== indexAt || !isZero(object, end, indexAt)) throw damaged('there are bytes between the last frame of the object and its index');
  return frames;
}

async function importKey({ dataKey }: Seal): Promise<CryptoKey> {
  return await crypto.subtle.importKey('raw', Uint8Array.from(dataKey ?? []), 'AES-GCM', false, ['decrypt']);
}

type CryptoKey = Awaited<ReturnType<typeof crypto.subtle.importKey>>;

interface Place {
  readonly header: Uint8Array;
  /** Of the object: its nonce is in its header. */
  readonly nonce: DataView;
  readonly frame: number;
  readonly context: string;
  readonly kind: Expected['kind'];
}

async function decrypt(key: CryptoKey, stored: Uint8Array, { header, nonce, frame, context, kind }: Place): Promise<Uint8Array> {
  const number = new Uint8Array(4);
  new DataView(number.buffer).setUint32(0, frame, true);
  const iv = Uint8Array.from([...new Uint8Array(nonce.buffer, nonce.byteOffset + 32, 8), ...number]);
  const additionalData = Uint8Array.from([...header, ...utf8Of(context), ...number]);
  try {
    return new Uint8Array(await crypto.subtle.decrypt({ name: 'AES-GCM', iv, additionalData }, key, Uint8Array.from(stored)));
  } catch (cause) {
    throw checkpointError('identity', `frame ${frame} of the ${kind} was not encrypted with this key for this tenant and job.`, cause);
  }
}

function digestOf({ digestKey }: Seal, ...parts: readonly Uint8Array[]): string {
  const hasher = blake3.create(digestKey === null ? { context: UNKEYED } : { key: digestKey });
  for (const part of parts) hasher.update(part);
  return hexOf(hasher.digest());
}

/** A stored u64 that counts bytes of an object. */
function sizeAt(view: DataView, at: number): number | null {
  const value = view.getBigUint64(at, true);
  return value > 1n << 42n ? null : Number(value);
}

function isZero(bytes: Uint8Array, from: number, to: number): boolean {
  return bytes.subarray(from, to).every((byte) => byte === 0);
}

function alignUp(offset: number, alignment: number): number {
  return Math.ceil(offset / alignment) * alignment;
}

function latin1(bytes: Uint8Array): string {
  return String.fromCharCode(...bytes);
}

function damaged(sentence: string): EngineError {
  return checkpointError('damaged', `${sentence}.`);
}
