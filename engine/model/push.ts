/** From a directory into a store: what is missing there, by content; then model.json under its revision, once and for all. */
import { open } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { type Clock, systemClock } from '../core/clock.ts';
import { statOf } from '../core/disk.ts';
import { EngineError } from '../core/errors.ts';
import { digestFile } from '../core/file-digest.ts';
import { Gate, allOrNone } from '../core/gate.ts';
import { LIMITS } from '../core/limits.ts';
import type { ObjectStore, PutOutcome } from '../ports/object-store.ts';
import { type Card, NAME_PATTERN, REVISION_PATTERN, parseCard } from './card.ts';
import { digestOfCard } from './cache.ts';
import { cardText, describe } from './describe.ts';
import { describeEngine } from './engine-card.ts';
import { filesOf } from './pull.ts';
import { DirectorySource } from './sources.ts';
import { LATEST, cardKey, pieceOf } from './store-layout.ts';

export interface PushOptions {
  /** Default: that of the card or the directory. */
  readonly name?: string | undefined;
  /** Default: that of the card, else 16 hex digits of the digest of its content. */
  readonly revision?: string | undefined;
  readonly licence?: string | undefined;
  readonly onProgress?: ((progress: PushProgress) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly deadlineMs?: number | undefined;
  readonly clock?: Clock | undefined;
}

export interface PushProgress {
  readonly phase: 'hash' | 'describe' | 'upload' | 'publish' | 'done';
  readonly files: readonly { readonly path: string; readonly bytes: number; readonly doneBytes: number }[];
}

export interface PushResult {
  readonly name: string;
  readonly revision: string;
  readonly digest: string;
  readonly card: Card;
  readonly uploaded_bytes: number;
  readonly bytes: number;
  /** Variants that no front can offer, since the engine could not be asked about them, and why. */
  readonly unread: Readonly<Record<string, string>>;
}

/** A file of the model and where it lies here. */
interface LocalFile {
  readonly path: string;
  readonly local: string;
  readonly bytes: number;
  readonly sha256: string;
  readonly modifiedMs: number;
}

/**
 * A push that was stopped goes on with what is missing. Pushing the same again writes nothing but the pointer to the newest revision.
 * @throws EngineError ERR_MODEL_CONFLICT (other content under this name and revision), ERR_MODEL_FILE (a file is not what the card
 * says), ERR_MODEL_NOT_FOUND, ERR_STORE, ERR_STORE_CONFIG, ERR_CANCELLED.
 */
export async function push(directory: string, store: ObjectStore, options: PushOptions = {}): Promise<PushResult> {
  const clock = options.clock ?? systemClock;
  using deadline = clock.timeout(options.deadlineMs ?? LIMITS.TRANSFER_MS_MAX);
  const signal = options.signal === undefined ? deadline.signal : AbortSignal.any([options.signal, deadline.signal]);
  try {
    return await pushWithin(directory, store, options, signal);
  } catch (error) {
    if (options.signal?.aborted) {
      throw new EngineError('ERR_CANCELLED', `The push to ${store.url} was stopped; the next one sends what is missing.`, { cause: error });
    }
    if (deadline.signal.aborted) {
      throw new EngineError('ERR_STORE', `The push to ${store.url} was not done in time; the next one sends what is missing.`, { cause: error });
    }
    throw error;
  }
}

async function pushWithin(directory: string, store: ObjectStore, options: PushOptions, signal: AbortSignal): Promise<PushResult> {
  const { card, files, texts, unread } = await cardOf(directory, options, signal);
  const text = cardText(card);
  const { name, revision = '' } = card;
  // Before a byte is sent: under a name and revision there is one model for ever.
  await refuseOther(store, name, revision, text, signal);

  const done = new Map(files.map((file) => [file.path, 0]));
  const tell = (phase: PushProgress['phase']) =>
    options.onProgress?.({ phase, files: files.map(({ path, bytes }) => ({ path, bytes, doneBytes: done.get(path) ?? 0 })) });
  tell('upload');
  let uploaded = 0;
  for (const [sha256, bytes] of texts) uploaded += await sendText(store, pieceOf(name, sha256, bytes.byteLength, 0).key, bytes, signal);
  const gate = new Gate(LIMITS.PIECES_IN_FLIGHT);
  const contents = [...new Map(files.map((file) => [file.sha256, file])).values()];
  await allOrNone(signal, contents.flatMap((file) => piecesOf(name, file)), (piece, either) => gate.pass(async () => {
    either.throwIfAborted();
    const sent = await sendPiece(store, piece, either);
    uploaded += sent;
    for (const { path, sha256 } of files) if (sha256 === piece.file.sha256) done.set(path, (done.get(path) ?? 0) + piece.bytes);
    tell('upload');
  }));
  for (const file of contents) await refuseChanged(file);

  tell('publish');
  await publish(store, name, revision, text, signal);
  await point(store, name, text, signal);
  tell('done');
  return { name, revision, digest: digestOfCard(text), card, uploaded_bytes: uploaded, bytes: files.reduce((sum, { bytes }) => sum + bytes, 0), unread };
}

interface Gathered extends Pick<PushResult, 'card' | 'unread'> {
  readonly files: readonly LocalFile[];
  /** What the card names beside the files, by SHA-256. */
  readonly texts: ReadonlyMap<string, Uint8Array>;
}

/** The directory's card, every file of it found to be what it says; or one made for it. */
async function cardOf(directory: string, options: PushOptions, signal: AbortSignal): Promise<Gathered> {
  const listing = await new DirectorySource(directory).list({ signal });
  const plain = listing.files.map(({ path, bytes, digest }) => ({ path, bytes, sha256: digest.hex }));
  const found = listing.card === null ? await describePlain(directory, plain) : parseCard(listing.card, directory);
  const name = options.name ?? (listing.card === null ? listing.name : found.name);
  if (!NAME_PATTERN.test(name)) {
    throw new EngineError('ERR_OPTION', `A model's name must match ${NAME_PATTERN}; got ${JSON.stringify(name.slice(0, 80))}.`);
  }
  const { variants, texts, unread } = await askEngine(found, (folder) => (listing.card === null ? directory : join(directory, folder)), options, signal);
  const named: Card = { ...found, name, licence: options.licence ?? found.licence, variants };
  const revision = options.revision ?? found.revision ?? digestOfCard(cardText(named)).slice(0, 16);
  if (!REVISION_PATTERN.test(revision)) {
    throw new EngineError('ERR_OPTION', `A revision must match ${REVISION_PATTERN}; got ${JSON.stringify(revision.slice(0, 80))}.`);
  }
  const card = parseCard(cardText({ ...named, revision }), directory);

  const files: LocalFile[] = [];
  for (const { path, bytes, digest } of filesOf(card, Object.keys(card.variants))) {
    signal.throwIfAborted();
    // A plain directory has its files where a card with variants has folders.
    const local = directory.endsWith('.gguf') ? directory : join(directory, listing.card === null ? basename(path) : path);
    const stat = await statOf(local);
    if (stat?.isFile !== true) throw new EngineError('ERR_MODEL_FILE', `${local} is missing; model.json names it.`);
    // What was listed a moment ago was hashed then.
    const sha256 = listing.card === null ? digest.hex : (await digestFile(local, stat.bytes)).sha256;
    if (stat.bytes !== bytes || sha256 !== digest.hex) {
      throw new EngineError('ERR_MODEL_FILE', `${local} is not the file that model.json speaks of: ${stat.bytes} bytes with SHA-256 ${sha256}.`);
    }
    files.push({ path, local, bytes, sha256, modifiedMs: stat.modifiedMs });
  }
  return { card, files, texts, unread };
}

/**
 * What whoever has no engine needs to know of each variant. One that the engine does not take, or not here, is pushed without: whoever runs it
 * hears why, and no front offers it.
 */
async function askEngine(
  { variants: found }: Card, folderOf: (directory: string) => string, { onProgress }: PushOptions, signal: AbortSignal,
): Promise<Pick<Gathered, 'texts' | 'unread'> & Pick<Card, 'variants'>> {
  const variants: Card['variants'] = {};
  const texts = new Map<string, Uint8Array>();
  const unread: Record<string, string> = {};
  onProgress?.({ phase: 'describe', files: [] });
  for (const [name, variant] of Object.entries(found)) {
    const { engine: _engine, model_id: _id, ...files } = variant;
    try {
      const { contents, ...said } = await describeEngine(folderOf(variant.directory), signal);
      variants[name] = { ...files, ...said };
      for (const [sha256, bytes] of contents) texts.set(sha256, bytes);
    } catch (error) {
      if (!(error instanceof EngineError) || error.code === 'ERR_CANCELLED' || error.kind === 'bug') throw error;
      variants[name] = files;
      unread[name] = error.message;
    }
  }
  return { variants, texts, unread };
}

async function describePlain(directory: string, files: readonly { path: string; bytes: number; sha256: string }[]): Promise<Card> {
  const base = basename(directory, '.gguf');
  return await describe(directory, { name: NAME_PATTERN.test(base) ? base : 'model', source: 'unknown', revision: null, licence: null, files: [...files] });
}

interface LocalPiece {
  readonly file: LocalFile;
  readonly key: string;
  readonly offset: number;
  readonly bytes: number;
}

function piecesOf(name: string, file: LocalFile): LocalPiece[] {
  const count = Math.max(1, Math.ceil(file.bytes / LIMITS.PIECE_BYTES));
  return Array.from({ length: count }, (_, i) => {
    const offset = i * LIMITS.PIECE_BYTES;
    return { file, key: pieceOf(name, file.sha256, file.bytes, offset).key, offset, bytes: Math.min(LIMITS.PIECE_BYTES, file.bytes - offset) };
  });
}

/** Bytes sent; 0: the store has it. */
async function sendPiece(store: ObjectStore, { file, key, offset, bytes }: LocalPiece, signal: AbortSignal): Promise<number> {
  if ((await store.head(key, { signal }))?.bytes === bytes) return 0;
  const handle = await open(file.local, 'r');
  try {
    const buffer = Buffer.allocUnsafe(bytes);
    for (let got = 0; got < bytes; ) {
      const { bytesRead } = await handle.read(buffer, got, bytes - got, offset + got);
      if (bytesRead === 0) throw new EngineError('ERR_MODEL_FILE', `${file.local} became shorter while it was sent.`);
      got += bytesRead;
    }
    // Unconditional, so that the store may try again: whoever else writes this name writes the same bytes.
    const outcome = await store.put(key, [buffer], { signal });
    if (outcome.kind !== 'written') throw new EngineError('ERR_STORE', `${store.url}: ${key} was not written.`);
    return bytes;
  } finally {
    await handle.close();
  }
}

/** Bytes sent; 0: the store has it. */
async function sendText(store: ObjectStore, key: string, bytes: Uint8Array, signal: AbortSignal): Promise<number> {
  if ((await store.head(key, { signal }))?.bytes === bytes.byteLength) return 0;
  const outcome = await store.put(key, [bytes], { signal });
  if (outcome.kind !== 'written') throw new EngineError('ERR_STORE', `${store.url}: ${key} was not written.`);
  return bytes.byteLength;
}

/** The digest was taken before the bytes were sent: between the two nobody may have written. */
async function refuseChanged(file: LocalFile): Promise<void> {
  const stat = await statOf(file.local);
  if (stat?.bytes !== file.bytes || stat.modifiedMs !== file.modifiedMs) {
    throw new EngineError('ERR_MODEL_FILE', `${file.local} was changed while it was sent; nothing was published.`);
  }
}

async function readText(store: ObjectStore, key: string, signal: AbortSignal): Promise<{ readonly text: string; readonly etag: string } | null> {
  const body = await store.get(key, { signal, bytesMax: LIMITS.JSON_BYTES_MAX });
  return body === null ? null : { text: Buffer.concat(body.chunks).toString('utf8'), etag: body.etag };
}

/** Whether it is there already. @throws EngineError ERR_MODEL_CONFLICT */
async function refuseOther(store: ObjectStore, name: string, revision: string, text: string, signal: AbortSignal): Promise<boolean> {
  const there = await readText(store, cardKey(name, revision), signal);
  if (there === null) return false;
  if (there.text === text) return true;
  throw new EngineError('ERR_MODEL_CONFLICT', `${store.url} has another model as ${name}, revision ${revision}; give this one its own --revision or --name.`);
}

async function publish(store: ObjectStore, name: string, revision: string, text: string, signal: AbortSignal): Promise<void> {
  const outcome = await store.put(cardKey(name, revision), [Buffer.from(text)], { signal, condition: { kind: 'if_absent' } });
  if (outcome.kind === 'written') return;
  // Refused by another's, by our own of an earlier push, or by one of ours whose answer was lost.
  if (!(await refuseOther(store, name, revision, text, signal))) throw unanswered(store, outcome);
}

/** Moves the newest revision's pointer; of two pushes at once the later one wins. */
async function point(store: ObjectStore, name: string, text: string, signal: AbortSignal): Promise<void> {
  const key = cardKey(name, LATEST);
  let outcome: PutOutcome = { kind: 'refused' };
  for (let tries = 0; tries < POINT_TRIES_MAX; tries++) {
    const before = await readText(store, key, signal);
    if (before?.text === text) return;
    const condition = before === null ? ({ kind: 'if_absent' } as const) : ({ kind: 'if_match', etag: before.etag } as const);
    outcome = await store.put(key, [Buffer.from(text)], { signal, condition });
    if (outcome.kind === 'written') return;
  }
  throw unanswered(store, outcome);
}

const POINT_TRIES_MAX = 8;

function unanswered(store: ObjectStore, outcome: PutOutcome): EngineError {
  return new EngineError('ERR_STORE', `${store.url} did not say whether model.json was written; push again.`, outcome.kind === 'unknown' ? { cause: outcome.cause } : {});
}
