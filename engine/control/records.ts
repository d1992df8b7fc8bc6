/** What the store keeps of files, batches and ended jobs: small objects that are written once. A batch's state is which of them are there, and its jobs' heads. */
import { z } from 'zod';

import { utf8Bytes } from '../core/bytes.ts';
import { assert } from '../core/assert.ts';
import { LIMITS } from '../core/limits.ts';
import { checkFormat, checkOf, parseCanonical, textOf } from '../kv/canonical.ts';
import { putIfAbsent } from '../kv/once.ts';
import { protocolOf, type ProtocolOptions } from '../kv/protocol.ts';
import { checkpointError } from '../kv/reason.ts';
import type { CallOptions, ObjectStore } from '../ports/object-store.ts';

const FORMAT = 'ruminate-record/1';

const timeMs = z.int().min(0);
/** What a record keeps of a blob. */
export const blobSchema = z.strictObject({
  bytes: z.int().min(0).max(LIMITS.OUTPUT_BYTES_MAX),
  nonce: z.string().regex(/^[0-9a-f]{16}$/),
  key: z.string().max(LIMITS.WRAPPED_KEY_CHARS_MAX).nullable(),
});

export const fileRecord = z.strictObject({
  kind: z.literal('file'),
  tenant: z.string(),
  id: z.string(),
  createdMs: timeMs,
  filename: z.string().min(1).max(LIMITS.FILE_NAME_CHARS_MAX),
  purpose: z.enum(['batch', 'batch_output']),
  blob: blobSchema,
});

/** What was asked for; `input` is a copy, so that the file may be deleted. */
export const batchRecord = z.strictObject({
  kind: z.literal('batch'),
  tenant: z.string(),
  id: z.string(),
  createdMs: timeMs,
  endpoint: z.string(),
  inputFileId: z.string(),
  metadata: z.record(z.string(), z.string()).nullable(),
  input: blobSchema,
});

const faultSchema = z.strictObject({ code: z.string(), message: z.string(), param: z.string().nullable(), line: z.int().min(1).nullable() });

/** What its lines were found to be: with faults nothing of it ever runs. */
export const verdictRecord = z.strictObject({
  kind: z.literal('verdict'),
  tenant: z.string(),
  id: z.string(),
  atMs: timeMs,
  lines: z.int().min(0).max(LIMITS.BATCH_LINES_MAX),
  faults: z.array(faultSchema).max(LIMITS.BATCH_FAULTS_MAX),
});

/** From here on nothing of it begins, and what runs is cancelled. */
export const stopRecord = z.strictObject({ kind: z.literal('stop'), tenant: z.string(), id: z.string(), atMs: timeMs, why: z.enum(['cancelled', 'expired']) });

/** Nothing of it changes any more. */
export const endRecord = z.strictObject({
  kind: z.literal('end'),
  tenant: z.string(),
  id: z.string(),
  atMs: timeMs,
  status: z.enum(['completed', 'cancelled', 'expired']),
  completed: z.int().min(0),
  failed: z.int().min(0),
  outputFileId: z.string().nullable(),
  errorFileId: z.string().nullable(),
});

/** When a job ended, and until when its KV and its result are kept; null: until they are erased. */
export const keepRecord = z.strictObject({ kind: z.literal('keep'), tenant: z.string(), id: z.string(), endedMs: timeMs, kvUntilMs: timeMs.nullable(), untilMs: timeMs.nullable() });

/** Which id an Idempotency-Key stands for, and for what body. */
export const claimRecord = z.strictObject({ kind: z.literal('claim'), tenant: z.string(), id: z.string(), body: z.string().regex(/^[0-9a-f]{64}$/), target: z.string() });

export type FileRecord = Readonly<z.infer<typeof fileRecord>>;
export type BatchRecord = Readonly<z.infer<typeof batchRecord>>;
export type Fault = Readonly<z.infer<typeof faultSchema>>;
export type Verdict = Readonly<z.infer<typeof verdictRecord>>;
export type Stop = Readonly<z.infer<typeof stopRecord>>;
export type Keep = Readonly<z.infer<typeof keepRecord>>;
export type End = Readonly<z.infer<typeof endRecord>>;

/** Whose it is and which, which is what a record is checked against. */
interface AnyRecord {
  readonly kind: string;
  readonly tenant: string;
  readonly id: string;
}

type Schema<T> = z.ZodType<T>;

/** null: it was not written. @throws EngineError ERR_CHECKPOINT, ERR_STORE, ERR_CANCELLED. */
export async function readOnce<T extends AnyRecord>(store: ObjectStore, key: string, schema: Schema<T>, of: Pick<T, 'tenant' | 'id'>, { signal }: CallOptions = {}): Promise<T | null> {
  const bytesMax = LIMITS.BATCH_RECORD_BYTES_MAX;
  const found = await store.get(key, { range: { offset: 0, bytes: bytesMax }, bytesMax, signal });
  return found === null ? null : parseRecord(textOf(found.chunks, key), key, schema, of);
}

/** What is there afterwards: `record`, or what somebody wrote before. @throws EngineError ERR_CHECKPOINT, ERR_STORE, ERR_CANCELLED. */
export async function writeOnce<T extends AnyRecord>(store: ObjectStore, key: string, schema: Schema<T>, record: NoInfer<T>, options: ProtocolOptions = {}): Promise<T> {
  // As it will be read: what nobody could read is never written, and fields stand in one order.
  const fields = { format: FORMAT, ...schema.parse(record) };
  const text = JSON.stringify({ ...fields, check: checkOf(fields) });
  assert(utf8Bytes(text) <= LIMITS.BATCH_RECORD_BYTES_MAX, 'a record is as long as may be read');
  const kept = await putIfAbsent(protocolOf(store, options), key, text, options.signal, LIMITS.BATCH_RECORD_BYTES_MAX);
  return parseRecord(kept, key, schema, record);
}

function parseRecord<T extends AnyRecord>(text: string, key: string, schema: Schema<T>, of: Pick<T, 'tenant' | 'id'>): T {
  const value = parseCanonical(text, key);
  checkFormat(value, FORMAT, key);
  const { check, ...fields } = value as Record<string, unknown>;
  const { format: _, ...record } = fields;
  const parsed = schema.safeParse(record);
  if (!parsed.success || check !== checkOf(fields)) throw checkpointError('damaged', `${key} is not what was written`);
  if (parsed.data.tenant !== of.tenant || parsed.data.id !== of.id) throw checkpointError('identity', `${key} is that of another`);
  return parsed.data;
}
