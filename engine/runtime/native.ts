/**
 * The native boundary: the only file that imports the addon, and the declaration of every native function.
 * `null` means unspecified; `undefined` in a DTO is a bug and is refused by the binding with the field's name.
 * Every native failure arrives as an `EngineError` with one of the codes of `core/errors.ts`.
 */
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { EngineError, ERROR_CODES, type ErrorCode } from '../core/errors.ts';
import type { GgufTokenizer } from './gguf-tokenizer.ts';

export type Isa = 'portable' | 'avx2' | 'avx512';
export type BackendName = 'reference' | 'cpu';
export type KvType = 'f32' | 'bf16';
/** What runs are for, and the baselines of docs/baselines.md for comparison. */
export type PolicyName = 'dense' | 'dms_borrowed' | 'dms_separate' | 'kvzap' | BaselineName;
export type BaselineName =
  | 'tova'
  | 'tova_kvhead'
  | 'h2o'
  | 'quest'
  | 'streaming_llm'
  | `kvpress_${'tova' | 'observed_attention' | 'streaming_llm' | 'snapkv' | 'expected_attention' | 'knorm'}`;
export type WeightType = 'f32' | 'f16' | 'bf16' | 'nf4' | 'q8_0' | 'q4_0' | 'q4_1' | 'q4_k' | 'q6_k';
export type Finish = 'stop' | 'length' | 'kv_read_budget' | 'memory' | 'ended';

export interface NativeInfo {
  readonly numericsId: string;
  /** Level a cpu backend would use now (RUMINATE_ISA respected). */
  readonly isa: Isa;
  /** Levels this machine can run. */
  readonly isas: readonly Isa[];
}

/** What `config.json` and the tensors say; all sizes in elements. */
export interface ModelInfo {
  readonly modelType: string;
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly maxPositions: number;
  readonly tiedEmbeddings: boolean;
  readonly ropeTheta: number;
  readonly parameters: number;
  readonly fileBytes: number;
  /** The most common one of the projections. */
  readonly weightType: WeightType;
  /** Bytes of the tensors of each type, as the file stores them; types that no tensor has are left out. */
  readonly weightBytes: Readonly<Partial<Record<WeightType, number>>>;
  readonly eosIds: readonly number[];
  readonly bosId: number | null;
  readonly policy: {
    readonly name: PolicyName;
    readonly window: number;
    readonly alphaScale: number;
    readonly alphaOffset: number;
    readonly alphaPer: 'head' | 'layer';
    readonly disableEviction: boolean;
    /** Documentation of the checkpoint, not used by the engine. */
    readonly targetCr: number;
    /** Why this flavour was chosen. */
    readonly reason: string;
    /** null under any other policy. `decode`: generated tokens are pruned too, not only those of the prompt. */
    readonly kvzap: { readonly surrogate: string; readonly kind: 'linear' | 'mlp'; readonly threshold: number; readonly decode: boolean } | null;
  };
}

export interface EngineOptions {
  /** A Hugging Face directory, or a GGUF file or the directory of one. */
  readonly directory: string;
  /**
   * key=value pairs over the directory's policy: policy, window, alpha_scale, alpha_offset, alpha_per, disable_eviction; or policy
   * kvzap with surrogate, threshold, window and decode; or policy naming a baseline and its parameters (docs/baselines.md).
   */
  readonly overrides: readonly (readonly [string, string])[];
  readonly backend: BackendName;
  /** null: f32 for F32 weights, else bf16. */
  readonly kv: KvType | null;
  readonly pageSlots: number;
  readonly threads: number;
  /** null: RUMINATE_ISA, else the best level of this machine. */
  readonly isa: Isa | null;
}

export interface MemoryUse {
  readonly weightBytes: number;
  readonly kvAllocatedBytes: number;
}

/** A loaded model on one backend with its own threads. Closing it while runs are open is safe: they keep what they need. */
export interface NativeEngine extends Disposable {
  readonly info: ModelInfo;
  readonly isa: Isa;
  readonly kv: KvType;
  memory(): MemoryUse;
  createRun(options: RunOptions): NativeRun;
  /**
   * A run that goes on where saved ones stopped; `prefill` then feeds what the tails do not hold. Every byte is verified first, and on
   * failure nothing is left behind. An abort settles at once; what was being restored is freed when it is there.
   * `memory`: what it is put into as far as that goes; once.
   */
  restoreRun(options: RestoreOptions, signal?: AbortSignal, memory?: PreparedMemory | null): Promise<NativeRun>;
  /** Begins to make the memory of a restore present, on a thread of its own, while its objects are still to be read. It fails for no lack of memory. */
  prepareRestore(options: MemoryToPrepare): PreparedMemory;
  /** Reads all weights once, on all threads. One such call or `forward` at a time (ERR_BUSY). */
  identity(signal?: AbortSignal): Promise<EngineIdentity>;
  /** A teacher-forced pass over `ids` on a fresh chain. */
  forward(options: ForwardOptions, signal?: AbortSignal): Promise<ForwardResult>;
  /** Idempotent; also `[Symbol.dispose]`. */
  close(): void;
}

export interface Sampling {
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
  readonly repetitionPenalty: number;
  readonly presencePenalty: number;
  readonly frequencyPenalty: number;
  readonly logitBias: readonly (readonly [number, number])[];
}

export interface RunOptions {
  readonly prompt: Int32Array;
  readonly width: number;
  /** [width] most tokens of each chain. */
  readonly lengths: Int32Array;
  readonly seed: bigint;
  /** Global index of the first chain. */
  readonly firstChain: number;
  /** Chains of the job of which this is a shard: its budget is then each chain's equal share. 0: this is the whole job. */
  readonly jobWidth: number;
  readonly sampling: Sampling;
  readonly eosIds: Int32Array;
  readonly stop: readonly string[];
  /** Bytes each token adds to the text: concatenated, with vocab + 1 offsets. Needed only with `stop`; else null. */
  readonly pieces: { readonly bytes: Uint8Array; readonly offsets: Uint32Array } | null;
  /** Mean over (layer, KV head), summed over chains; null: none. */
  readonly kvReadBudget: number | null;
  /** KV bytes the engine may hold before a step; above it the chains end with `memory`. null: none. */
  readonly memoryLimitBytes: number | null;
  readonly prefillChunk: number;
  /** How many of the likeliest tokens have a log-probability beside the token's own (0 to 20; at most the vocabulary); null: none are kept. */
  readonly logprobs: number | null;
  /** Eviction bits are kept for the journal, and a finished chain's KV until a delta has saved it. */
  readonly checkpointed: boolean;
}

/** Natural logarithms under the model's own distribution, before anything of `Sampling` and masks (docs/NUMERICS.md). */
export interface Logprobs {
  /** Alternatives for each token. */
  readonly top: number;
  readonly tokens: Float32Array; // [tokens]
  readonly topIds: Int32Array; // [tokens, top] best first
  readonly topValues: Float32Array; // [tokens, top]
}

/** Which tokens may be drawn: bit t % 32 of word t / 32 is token t. [ceil(vocab / 32)] */
export type TokenMask = Uint32Array;

export interface ChainReport {
  readonly tokens: Int32Array;
  readonly logprobs: Logprobs | null;
  readonly finish: Finish | null;
  /** Of a report made of several: why this chain was ended, where it is not for all of them the same. */
  readonly ended?: string;
  /** Length in bytes of the text before a stop string, or null. */
  readonly stopBytes: number | null;
  /** The *Sum fields are sums over (layer, KV head); divide by `headCount`. */
  readonly liveSum: number;
  readonly peakSum: number;
  /** As peakSum, from the end of the prompt on. */
  readonly decodePeakSum: number;
  readonly readSum: number;
  readonly denseReadSum: number;
  readonly fed: number;
}

export interface RunReport {
  readonly step: number;
  readonly prefilled: boolean;
  readonly prefillReadSum: number;
  readonly sharedSum: number;
  /** layers x KV heads. */
  readonly headCount: number;
  readonly running: number;
  /** Of a restored run: tokens that were fed again. */
  readonly caughtUp: number;
  readonly chains: readonly ChainReport[];
}

/** What guards stored objects: keys of 32 bytes, and the tenant and origin job that encryption is bound to. */
export interface Seal {
  readonly digestKey: Uint8Array | null;
  readonly dataKey: Uint8Array | null;
  readonly context: string;
}

export interface SaveOptions extends Seal {
  /** Pages and tails and the journal, or the journal alone. */
  readonly delta: boolean;
  readonly epoch: number;
  /** Ordinal of this cut within the epoch. */
  readonly n: number;
  readonly codec: 'raw' | 'lossless';
}

/** An object as it goes into a store. Its bytes are the engine's own memory, let go with the array. */
export interface SavedObject {
  readonly kind: 'segment' | 'tail' | 'journal';
  /** -1: the prompt's, -2: the whole job's. */
  readonly chain: number;
  readonly nonce: string;
  /** Of a tail: tokens of its chain at the cut. */
  readonly generated: number;
  readonly digest: string;
  readonly bytes: Uint8Array;
}

/** An object as it came from a store; `seal` is an index into `seals`. */
export interface LoadedObject {
  readonly chunks: readonly Uint8Array[];
  readonly bytes: number;
  readonly digest: string;
  readonly seal: number;
}

export interface ObjectSources {
  readonly objects: readonly LoadedObject[];
  readonly seals: readonly Seal[];
  /** false: CRCs only. */
  readonly checkDigests: boolean;
}

export interface RestoreOptions extends ObjectSources {
  readonly run: RunOptions;
  /** Another numerics computed the journals: their eviction bits are forced instead of compared. */
  readonly replay: boolean;
  /** The journals are this job's, and saves go on after them; else the first save writes everything anew. */
  readonly ownJournal: boolean;
  readonly chains: readonly RestoreChain[];
  readonly promptSegments: readonly number[];
  readonly promptTail: number | null;
  readonly journals: readonly number[];
  /** Of other shards of the job that `journals` are of: of one prompt, and of other chains. Default: none. */
  readonly shardJournals?: readonly (readonly number[])[] | undefined;
  /**
   * The journals are another job's, and the prompt begins as its chain `source` did (-1: with its prompt alone), as far as the tail holds it:
   * `report().chains[i].fed` tokens. Only the rest of the prompt is fed.
   */
  readonly prefix: RestoreChain | null;
}

export interface MemoryToPrepare {
  /** Of the segments that will be restored, as stored: of coded ones a part is prepared. */
  readonly segmentBytes: number;
  /** Chains, or prompts, that have a tail. */
  readonly caches: number;
  /** That all chains hold together at their longest: no more is prepared, whatever the segments say. */
  readonly tokens: number;
  /** Nothing is prepared that would bring the KV of the engine above it. null: none. */
  readonly memoryLimitBytes: number | null;
}

/** Closing it (idempotent) gives back what no restore has taken, and stops what is still being prepared. */
export interface PreparedMemory extends Disposable {
  /** Settles when all is present, or closed. */
  readonly done: Promise<void>;
  close(): void;
}

export interface RestoreChain {
  /** The journals' chain whose first `tokens` tokens it begins with (-1: all); source -1: it begins with the prompt. */
  readonly source: number;
  readonly tokens: number;
  /** Goes on though it had finished by length, budget, memory or from outside. */
  readonly reopen: boolean;
  readonly segments: readonly number[];
  readonly tail: number | null;
}

/** One object, and what whoever names it says of it. */
export interface ObjectToVerify {
  readonly kind: SavedObject['kind'];
  /** null: any. */
  readonly layoutId: string | null;
  readonly chunks: readonly Uint8Array[];
  readonly bytes: number;
  readonly digest: string;
  /** null: the object is sealed and there is no key. Then sizes, structure, CRCs and the named digest are checked, and nothing that takes a key. */
  readonly seal: Seal | null;
}

export interface JournalSources extends ObjectSources {
  readonly layoutId: string;
  readonly vocabSize: number;
}

/** What the journals of a job say, folded. */
export interface JournalReport {
  readonly report: RunReport;
  /** Global index of each of the report's chains. */
  readonly chains: readonly number[];
  readonly promptTokens: number;
}

export interface EngineIdentity {
  readonly layoutId: string;
  readonly weightsDigest: string;
  readonly numericsId: string;
}

/** One prompt, `width` chains stepping together. One call at a time (ERR_BUSY), off the JS thread. */
export interface NativeRun extends Disposable {
  prefill(signal?: AbortSignal): Promise<void>;
  /**
   * With `masks`, one for each chain (null: everything is allowed), `maxSteps` is 1; a mask that allows nothing is ERR_OPTION.
   * Up to `maxSteps` steps; returns after the step in which a chain finished. An abort settles within one step with ERR_CANCELLED
   * and loses nothing: `report()` holds every whole step and the run can go on.
   */
  step(maxSteps: number, signal?: AbortSignal, masks?: readonly (TokenMask | null)[] | null): Promise<void>;
  /** Finishes chains now, frees their KV. */
  end(chains: readonly number[]): void;
  report(): RunReport;
  /**
   * Between two calls, after the prefill. Objects in memory; the next save holds what is new since. An abort while it waits for its turn
   * saves nothing (ERR_CANCELLED); later it is too late, as what a save holds no other will hold again.
   */
  save(options: SaveOptions, signal?: AbortSignal): Promise<{ readonly report: RunReport; readonly objects: readonly SavedObject[] }>;
  close(): void;
}

export interface ForwardOptions {
  readonly ids: Int32Array;
  /** Ids after this many are fed one by one (decode); the first `promptLen` in chunks. */
  readonly promptLen: number;
  readonly chunk: number;
}

/** Row-major; T = ids. */
export interface ForwardResult {
  readonly logits: Float32Array; // [T, vocab]
  /** 1: DMS: token t decides that t - 1 leaves the cache with the window; KVzap: t itself scores below the threshold; else null. */
  readonly evictDecision: Uint8Array | null; // [layers, kvHeads, T]
  /** Tokens that attention read. */
  readonly liveCount: Int32Array; // [layers, kvHeads, T]
  /** What a kvpress scorer gave the prompt, or KVzap's surrogate every token; null without one. */
  readonly scores: Float32Array | null; // [layers, kvHeads, promptLen or T]
  /** Sum over the fed tokens after the prompt / over all of the mean live length. */
  readonly kvReadsDecode: number;
  readonly kvReadsAll: number;
  readonly peakTokens: number;
  /** The live keys at the end, by [layer][kvHead]: for tests that compare bytes. */
  readonly heads: readonly (readonly { readonly positions: Int32Array; readonly k: Float32Array; readonly v: Float32Array }[])[];
}

/** @example nativeInfo().isas // ['portable', 'avx2'] */
export function nativeInfo(): NativeInfo {
  return calling(() => addon().nativeInfo());
}

/** Parses and checks a model directory or GGUF file without packing weights. */
export async function inspectModel(directory: string, overrides: readonly (readonly [string, string])[]): Promise<ModelInfo> {
  return settling(() => addon().inspectModel({ directory, overrides }));
}

/** null: the path names no GGUF file, so its tokenizer is tokenizer.json. */
export async function readGgufTokenizer(path: string): Promise<GgufTokenizer | null> {
  return settling(() => addon().readGgufTokenizer({ path }));
}

/**
 * Loads a model. An abort settles at once; what was being loaded is freed when it is there.
 * @example using engine = await openEngine({ directory, overrides: [], backend: 'cpu', kv: null, pageSlots: 64, threads: 2, isa: null });
 */
export async function openEngine(options: EngineOptions, signal?: AbortSignal): Promise<NativeEngine> {
  return abandonable(signal, () => addon().openEngine(options).then((opened) => new Engine(opened)), (engine) => engine.close());
}

/** Journals of one job, in order, of an engine with this layout and vocabulary. An abort settles at once. */
export async function decodeJournals(options: JournalSources, signal?: AbortSignal): Promise<JournalReport> {
  return abandonable(signal, () => addon().decodeJournals(options), () => undefined);
}

/**
 * Every byte of an object: sizes, structure, CRC and digest of every frame, tag and codec where it has them. Off the JS thread; needs no engine.
 * @throws EngineError ERR_CHECKPOINT, ERR_KEY (encrypted, and the seal has no key), ERR_MEMORY.
 */
export async function verifyObject(options: ObjectToVerify): Promise<{ readonly frames: number; readonly rawBytes: number }> {
  return settling(() => addon().verifyObject(options));
}

class Engine implements NativeEngine {
  readonly info: ModelInfo;
  readonly isa: Isa;
  readonly kv: KvType;
  readonly #handle: Handle;

  constructor(opened: OpenedEngine) {
    this.info = opened.info;
    this.isa = opened.isa;
    this.kv = opened.kv;
    this.#handle = opened.handle;
  }

  memory(): MemoryUse {
    return calling(() => addon().engineMemory(this.#handle));
  }

  createRun(options: RunOptions): NativeRun {
    return new Run(calling(() => addon().createRun(this.#handle, options)));
  }

  async restoreRun(options: RestoreOptions, signal?: AbortSignal, memory: PreparedMemory | null = null): Promise<NativeRun> {
    const shardJournals = (options.shardJournals ?? []).map((journals) => ({ journals }));
    const given = { ...options, shardJournals, prepared: memory instanceof Prepared ? memory.handle : null };
    return abandonable(signal, () => addon().restoreRun(this.#handle, given).then((handle) => new Run(handle)), (run) => run.close());
  }

  prepareRestore(options: MemoryToPrepare): PreparedMemory {
    return new Prepared(calling(() => addon().prepareRestore(this.#handle, options)));
  }

  async identity(signal?: AbortSignal): Promise<EngineIdentity> {
    return cancellable(signal, () => addon().engineIdentity(this.#handle), () => addon().engineCancel(this.#handle));
  }

  async forward(options: ForwardOptions, signal?: AbortSignal): Promise<ForwardResult> {
    return cancellable(signal, () => addon().engineForward(this.#handle, options), () => addon().engineCancel(this.#handle));
  }

  close(): void {
    calling(() => addon().engineClose(this.#handle));
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

class Prepared implements PreparedMemory {
  readonly handle: Handle;
  readonly done: Promise<void>;

  constructor(handle: Handle) {
    this.handle = handle;
    // What goes wrong costs the restore time, and is its to tell.
    this.done = settling(() => addon().preparedWork(handle)).catch(() => undefined);
  }

  close(): void {
    calling(() => addon().preparedClose(this.handle));
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

class Run implements NativeRun {
  readonly #handle: Handle;

  constructor(handle: Handle) {
    this.#handle = handle;
  }

  async prefill(signal?: AbortSignal): Promise<void> {
    return cancellable(signal, () => addon().runPrefill(this.#handle), () => addon().runCancel(this.#handle));
  }

  async step(maxSteps: number, signal?: AbortSignal, masks: readonly (TokenMask | null)[] | null = null): Promise<void> {
    return cancellable(signal, () => addon().runStep(this.#handle, { maxSteps, masks }), () => addon().runCancel(this.#handle));
  }

  end(chains: readonly number[]): void {
    calling(() => addon().runEnd(this.#handle, { chains }));
  }

  report(): RunReport {
    return calling(() => addon().runReport(this.#handle));
  }

  async save(options: SaveOptions, signal?: AbortSignal): Promise<{ readonly report: RunReport; readonly objects: readonly SavedObject[] }> {
    return cancellable(signal, () => addon().runSave(this.#handle, options), () => addon().runCancel(this.#handle));
  }

  close(): void {
    calling(() => addon().runClose(this.#handle));
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** An object of the addon, meaningful only to it. */
type Handle = { readonly native: unique symbol };

interface OpenedEngine {
  readonly handle: Handle;
  readonly info: ModelInfo;
  readonly isa: Isa;
  readonly kv: KvType;
}

/** The exports of native/bind/addon.cc. */
interface Addon {
  nativeInfo(): NativeInfo;
  inspectModel(options: { directory: string; overrides: EngineOptions['overrides'] }): Promise<ModelInfo>;
  readGgufTokenizer(options: { path: string }): Promise<GgufTokenizer | null>;
  openEngine(options: EngineOptions): Promise<OpenedEngine>;
  engineMemory(engine: Handle): MemoryUse;
  engineForward(engine: Handle, options: ForwardOptions): Promise<ForwardResult>;
  engineCancel(engine: Handle): void;
  engineClose(engine: Handle): void;
  createRun(engine: Handle, options: RunOptions): Handle;
  runPrefill(run: Handle): Promise<void>;
  runStep(run: Handle, options: { maxSteps: number; masks: readonly (TokenMask | null)[] | null }): Promise<void>;
  runCancel(run: Handle): void;
  runEnd(run: Handle, options: { chains: readonly number[] }): void;
  runReport(run: Handle): RunReport;
  runClose(run: Handle): void;
  runSave(run: Handle, options: SaveOptions): Promise<{ readonly report: RunReport; readonly objects: readonly SavedObject[] }>;
  prepareRestore(engine: Handle, options: MemoryToPrepare): Handle;
  preparedWork(prepared: Handle): Promise<void>;
  preparedClose(prepared: Handle): void;
  restoreRun(engine: Handle, options: Omit<RestoreOptions, 'shardJournals'> & { readonly shardJournals: readonly { readonly journals: readonly number[] }[]; readonly prepared: Handle | null }): Promise<Handle>;
  engineIdentity(engine: Handle): Promise<EngineIdentity>;
  decodeJournals(options: JournalSources): Promise<JournalReport>;
  verifyObject(options: ObjectToVerify): Promise<{ readonly frames: number; readonly rawBytes: number }>;
  fileSteps(options: { readonly root: string; readonly steps: readonly FileStep[] }): Promise<FileOutcome>;
}

/** One call of the file system; paths are relative to the root, of plain parts, and no symbolic link is followed. See native/files/steps.h. */
export type FileStep =
  | { readonly call: 'folders' | 'mkdir' | 'sync' | 'unlink' | 'remove' | 'prune' | 'list'; readonly path: string }
  | { readonly call: 'write'; readonly path: string; readonly chunks: readonly Uint8Array[] }
  | { readonly call: 'rename' | 'link'; readonly path: string; readonly to: string }
  /** `bytes`: -1: the file is not opened. `expected`, as `incarnation/number` or empty for none: the steps end if it is another. */
  | { readonly call: 'newest'; readonly path: string; readonly offset: number; readonly bytes: number; readonly expected: string | null }
  | { readonly call: 'older'; readonly path: string; readonly number: number };

export interface FileVersion {
  readonly incarnation: string;
  readonly number: number;
  /** -1: it was not asked for. */
  readonly size: number;
  readonly modifiedMs: number;
  readonly bytes: Uint8Array;
}

export interface FileOutcome {
  /** So many steps were done; the next one has failed with `errno`, or found another version than expected if that is 0. */
  readonly done: number;
  readonly errno: number;
  readonly rootMissing: boolean;
  /** One for each `newest`; null: there is no such object. */
  readonly found: readonly (FileVersion | null)[];
  /** Of the last `list`. */
  readonly folders: readonly string[];
}

/** All of them on one thread of the pool, up to the first that fails. An abort settles at once; the steps go on to their end. @throws EngineError ERR_CANCELLED, ERR_MEMORY. */
export async function fileSteps(root: string, steps: readonly FileStep[], signal?: AbortSignal): Promise<FileOutcome> {
  return abandonable(signal, () => addon().fileSteps({ root, steps }), () => undefined);
}

let loaded: Addon | undefined;

function addon(): Addon {
  loaded ??= load();
  return loaded;
}

function load(): Addon {
  const file = addonFile();
  try {
    return createRequire(import.meta.url)(file) as Addon;
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new EngineError('ERR_NATIVE_MISSING', `The native engine does not load here (${reason}); run \`npm run build\`.`, { cause });
  }
}

/**
 * This file runs as engine/runtime/native.ts or within dist/cli.mjs: the addon belongs to the nearest package above with our name. RUMINATE_ADDON names another
 * build of it, as the tests under sanitizers do.
 */
function addonFile(): string {
  const named = process.env.RUMINATE_ADDON ?? '';
  if (named !== '') return path.resolve(named);
  let folder = path.dirname(fileURLToPath(import.meta.url));
  let missing = 'no ruminate package around this file';
  for (;;) {
    const manifest = path.join(folder, 'package.json');
    if (existsSync(manifest) && (JSON.parse(readFileSync(manifest, 'utf8')) as { name?: unknown }).name === 'ruminate') {
      const file = path.join(folder, 'build', 'native', 'ruminate.node');
      if (existsSync(file)) return file;
      missing = `no ${file}`;
    }
    const parent = path.dirname(folder);
    if (parent === folder) throw new EngineError('ERR_NATIVE_MISSING', `The native engine is not built (${missing}); run \`npm run build\`.`);
    folder = parent;
  }
}

function calling<T>(call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw toEngineError(error);
  }
}

async function settling<T>(call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    throw toEngineError(error);
  }
}

/** Starts a native call that cannot be stopped: an abort settles at once, and what comes later is dropped. */
async function abandonable<T>(signal: AbortSignal | undefined, start: () => Promise<T>, drop: (late: T) => void): Promise<T> {
  throwIfAborted(signal);
  const call = settling(start);
  if (signal === undefined) return call;
  return new Promise((resolve, reject) => {
    const onAbort = () => {
      reject(cancelled());
      call.then(drop, () => undefined);
    };
    signal.addEventListener('abort', onAbort, { once: true });
    call.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}

/** Starts a native call; an abort asks it to stop, and the promise settles when it has. */
async function cancellable<T>(signal: AbortSignal | undefined, start: () => Promise<T>, cancel: () => void): Promise<T> {
  throwIfAborted(signal);
  // Listens only once the call has started: a refused call (ERR_BUSY) must not cancel the one in flight.
  const call = calling(start);
  signal?.addEventListener('abort', cancel, { once: true });
  try {
    return await call;
  } catch (error) {
    throw toEngineError(error);
  } finally {
    signal?.removeEventListener('abort', cancel);
  }
}

function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw cancelled();
}

function cancelled(): EngineError {
  return new EngineError('ERR_CANCELLED', 'The call was cancelled.');
}

function toEngineError(error: unknown): EngineError {
  if (error instanceof EngineError) return error;
  const message = error instanceof Error ? error.message : String(error);
  const code = (error as { code?: unknown } | null)?.code;
  const known = typeof code === 'string' && Object.hasOwn(ERROR_CODES, code);
  return new EngineError(known ? (code as ErrorCode) : 'ERR_INTERNAL', message, { cause: error });
}
