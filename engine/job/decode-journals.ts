/**
 * What the journals of a job say, folded, without native code: what native/checkpoint/journal.cc does, with its refusals. Frames and rules:
 * docs/CHECKPOINT.md, Contents. Eviction decisions are left to whoever feeds tokens again, or asks what a chain had used before its end.
 */
import { readFrames } from '../checkpoint/object-reader.ts';
import { hexOf, joined } from '../core/bytes.ts';
import { EngineError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { throwIfCancelled } from '../core/waiting.ts';
import { checkpointError } from '../kv/reason.ts';
import type { ChainReport, Finish, JournalReport, JournalSources, Logprobs } from '../runtime/native.ts';

const COUNTER_MAX = 2 ** 52;
const POSITIONS_MAX = 16_777_216;
/** Layers times KV heads. */
const HEADS_MAX = 1_024 * 1_024;
const LOWEST = -3.4028234663852886e38;
/** By their numbers. */
const FINISHES: readonly (Finish | null)[] = [null, 'stop', 'length', 'kv_read_budget', 'memory', 'ended'];

interface Job {
  readonly step: number;
  readonly prefillReadSum: number;
  readonly prefillPeak: number;
  readonly sharedSum: number;
  readonly promptTokens: number;
  readonly heads: number;
  /** Digest of the prompt. */
  readonly prompt: string;
  readonly decided: Range;
}

interface Chain {
  readonly chain: number;
  readonly firstToken: number;
  readonly report: ChainReport;
  readonly decided: Range;
}

/** Of positions; the end is not in it. A row of bits for each. */
interface Range {
  readonly first: number;
  readonly end: number;
  readonly bits: Uint8Array;
}

/** What was decided when each token came, of every chain that is known: rows of `ceil(heads / 8)` bytes, from the prompt's first token on. */
export interface Decisions {
  /** 0: the backend keeps none. */
  readonly heads: number;
  readonly promptTokens: number;
  readonly prefillPeak: number;
  readonly prompt: Uint8Array;
  /** By the chain's index within the job. */
  readonly chains: ReadonlyMap<number, Uint8Array>;
}

interface Folded {
  job: Job | null;
  /** Of the prompt: in the first journal only. */
  prompt: Uint8Array;
  readonly chains: Map<number, { report: ChainReport; tokens: Int32Array[]; logprobs: (Logprobs | null)[]; bits: Uint8Array[]; count: number; decidedEnd: number }>;
}

/** @throws EngineError ERR_CHECKPOINT, ERR_KEY, ERR_OPTION, ERR_CANCELLED. */
export async function decodeJournals(sources: JournalSources, signal?: AbortSignal): Promise<JournalReport> {
  const folded = await foldAll(sources, signal);
  const chains = [...folded.chains].sort(([a], [b]) => a - b);
  const reports = chains.map(([, { report, tokens, logprobs }]): ChainReport => ({ ...report, tokens: joinedTokens(tokens), logprobs: joinedLogprobs(logprobs) }));
  return {
    report: {
      step: folded.job?.step ?? 0,
      prefilled: true,
      prefillReadSum: folded.job?.prefillReadSum ?? 0,
      sharedSum: folded.job?.sharedSum ?? 0,
      headCount: 0,
      running: reports.filter(({ finish }) => finish === null).length,
      caughtUp: 0,
      chains: reports,
    },
    chains: chains.map(([index]) => index),
    promptTokens: folded.job?.promptTokens ?? 0,
  };
}

/** @throws EngineError as `decodeJournals`. */
export async function decodeDecisions(sources: JournalSources, signal?: AbortSignal): Promise<Decisions> {
  const { job, prompt, chains } = await foldAll(sources, signal);
  return {
    heads: job?.heads ?? 0,
    promptTokens: job?.promptTokens ?? 0,
    prefillPeak: job?.prefillPeak ?? 0,
    prompt,
    chains: new Map([...chains].map(([index, { bits }]) => [index, joined(bits)])),
  };
}

async function foldAll({ objects, seals, layoutId, vocabSize }: JournalSources, signal: AbortSignal | undefined): Promise<Folded> {
  const folded: Folded = { job: null, prompt: new Uint8Array(0), chains: new Map() };
  for await (const { job, chains } of decoded({ objects, seals, layoutId, vocabSize }, signal)) fold(folded, job, chains);
  return folded;
}

/** How far the chains are that some journals tell of, which need not be the job's first ones. */
export interface Counts {
  readonly step: number;
  readonly chains: ReadonlyMap<number, { readonly tokens: number; readonly finish: Finish | null }>;
}

/** @returns null: there are none. @throws EngineError as `decodeJournals`. */
export async function countJournals(sources: Omit<JournalSources, 'vocabSize'>, signal?: AbortSignal): Promise<Counts | null> {
  const found = new Map<number, { readonly tokens: number; readonly finish: Finish | null }>();
  let last: Job | null = null;
  for await (const { job, chains } of decoded({ ...sources, vocabSize: Infinity }, signal)) {
    last = job;
    for (const { chain, firstToken, report: { tokens, finish } } of chains) found.set(chain, { tokens: firstToken + tokens.length, finish });
  }
  return last === null ? null : { step: last.step, chains: found };
}

async function* decoded({ objects, seals, layoutId, vocabSize }: Omit<JournalSources, 'checkDigests'>, signal: AbortSignal | undefined): AsyncGenerator<{ readonly job: Job; readonly chains: readonly Chain[] }> {
  for (const { chunks, bytes, digest, seal } of objects) {
    throwIfCancelled(signal);
    const found = seals[seal];
    if (found === undefined) throw new EngineError('ERR_OPTION', 'decodeJournals: there is no such seal.');
    const [first, ...rest] = await readFrames(joined(chunks), { kind: 'journal', layoutId, digest, bytes }, found);
    const job = jobOf(new Reader(first ?? new Uint8Array(0)));
    const chains = rest.map((frame) => chainOf(new Reader(frame), job.heads, vocabSize));
    if (new Set(chains.map(({ chain }) => chain)).size !== chains.length) throw damaged('is about one chain twice');
    yield { job, chains };
  }
}

function jobOf(frame: Reader): Job {
  const [step, prefillReadSum, prefillPeak, sharedSum] = [frame.i64(), frame.i64(), frame.i64(), frame.i64()];
  const promptTokens = frame.i32();
  const heads = frame.i32();
  const prompt = hexOf(frame.bytes(16));
  const counters = [step, prefillReadSum, prefillPeak, sharedSum];
  const isPossible = counters.every(isCounter) && promptTokens > 0 && promptTokens <= POSITIONS_MAX && heads >= 0 && heads <= HEADS_MAX;
  const decided = isPossible ? decisionsOf(frame, heads) : null;
  if (decided === null || !frame.isDone) throw damaged('is about an impossible job');
  return { step, prefillReadSum, prefillPeak, sharedSum, promptTokens, heads, prompt, decided };
}

function chainOf(frame: Reader, heads: number, vocabSize: number): Chain {
  const [chain, firstToken, count, alternatives] = [frame.i32(), frame.i32(), frame.i32(), frame.i32()];
  const [finish, stopBytes, fed, padding] = [frame.i32(), frame.i32(), frame.i32(), frame.i32()];
  const [liveSum, peakSum, decodePeakSum, readSum, denseReadSum] = [frame.i64(), frame.i64(), frame.i64(), frame.i64(), frame.i64()];
  const ended = FINISHES[finish];
  const isPossible = frame.isWhole && ended !== undefined && chain >= 0 && firstToken >= 0 && count >= 0 && alternatives >= 0 && alternatives <= LIMITS.TOP_LOGPROBS_MAX + 1 && padding === 0 && firstToken <= POSITIONS_MAX - count
    && stopBytes >= -1 && fed >= 0 && fed <= POSITIONS_MAX && [liveSum, peakSum, decodePeakSum, readSum, denseReadSum].every(isCounter)
    // Text ends at a stop string only where one finished the chain.
    && (stopBytes === -1 || ended === 'stop') && liveSum <= decodePeakSum;
  if (!isPossible) throw damaged('is about an impossible chain');
  const tokens = frame.i32s(count);
  const decided = decisionsOf(frame, heads);
  const logprobs = alternatives === 0 ? null : logprobsOf(frame, count, alternatives - 1, vocabSize);
  if (decided === null || logprobs === undefined || !frame.isDone) throw damaged('holds another number of tokens than it says');
  if (!tokens.every((token) => token >= 0 && token < vocabSize)) throw damaged('holds a token that the model does not know');
  const report = { tokens, logprobs, finish: ended, stopBytes: stopBytes < 0 ? null : stopBytes, liveSum, peakSum, decodePeakSum, readSum, denseReadSum, fed };
  return { chain, firstToken, report, decided };
}

/** undefined: impossible. */
function logprobsOf(frame: Reader, count: number, top: number, vocabSize: number): Logprobs | undefined {
  const logprobs = { top, tokens: frame.f32s(count), topIds: frame.i32s(count * top), topValues: frame.f32s(count * top) };
  const isPossible = (value: number) => value <= 0 && value >= LOWEST;
  const isKnown = logprobs.topIds.every((id) => id >= 0 && id < vocabSize);
  return isKnown && logprobs.tokens.every(isPossible) && logprobs.topValues.every(isPossible) ? logprobs : undefined;
}

/** null: impossible. */
function decisionsOf(frame: Reader, heads: number): Range | null {
  const [first, end] = [frame.i32(), frame.i32()];
  if (!frame.isWhole || first < 0 || end < first || end > POSITIONS_MAX || (heads === 0 && end > first)) return null;
  const row = Math.ceil(heads / 8);
  const bits = frame.bytes((end - first) * row);
  // Bits of heads that are not there are zero: one journal, one encoding.
  const unused = row * 8 - heads;
  for (let last = row - 1; unused > 0 && last < bits.byteLength; last += row) if ((bits[last] as number) >> (8 - unused) !== 0) return null;
  return frame.isWhole ? { first, end, bits } : null;
}

function fold(folded: Folded, job: Job, chains: readonly Chain[]): void {
  const before = folded.job;
  const decided = before === null && job.heads > 0 ? job.promptTokens : 0;
  const follows = before === null
    || (job.prompt === before.prompt && job.promptTokens === before.promptTokens && job.heads === before.heads && job.step >= before.step);
  if (job.decided.first !== 0 || job.decided.end !== decided || !follows) throw astray();
  folded.job = job;
  if (before === null) folded.prompt = job.decided.bits;
  for (const { chain, firstToken, report, decided: { first, end, bits } } of chains.toSorted((a, b) => a.chain - b.chain)) {
    const known = folded.chains.get(chain) ?? { report: null, tokens: [] as Int32Array[], logprobs: [] as (Logprobs | null)[], bits: [] as Uint8Array[], count: 0, decidedEnd: job.promptTokens };
    // A chain that said it was done never goes on; any other may have been given more length or a larger budget.
    if (firstToken !== known.count || first !== known.decidedEnd || known.report?.finish === 'stop') throw astray();
    if (known.count > 0 && known.report?.logprobs?.top !== report.logprobs?.top) throw astray();
    known.tokens.push(report.tokens);
    known.logprobs.push(report.logprobs);
    known.bits.push(bits);
    const count = known.count + report.tokens.length;
    folded.chains.set(chain, { ...known, report, count, decidedEnd: end });
    if (!isFed(job.promptTokens, count, report, { end })) throw damaged('is about tokens that cannot have been fed');
  }
}

/** All tokens but the newest were fed, and of a chain that goes on that one too. */
function isFed(prompt: number, tokens: number, { fed, finish }: ChainReport, { end }: Pick<Range, 'end'>): boolean {
  if (tokens > POSITIONS_MAX || (end > prompt && end > fed)) return false;
  if (finish === null) return fed === prompt + tokens;
  return fed <= prompt + tokens && (tokens === 0 || fed >= prompt + tokens - 1);
}

/** Little-endian. Reading past the end gives zeros, and `isWhole` is false from then on. */
class Reader {
  readonly #view: DataView;
  readonly #bytes: Uint8Array;
  #at = 0;
  #isWhole = true;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get isWhole(): boolean {
    return this.#isWhole;
  }

  /** All was read, and nothing more than there was. */
  get isDone(): boolean {
    return this.#isWhole && this.#at === this.#bytes.byteLength;
  }

  i32(): number {
    const at = this.#take(4);
    return at === null ? 0 : this.#view.getInt32(at, true);
  }

  /** Exact up to 2^53; what is beyond is beyond every bound too. */
  i64(): number {
    const at = this.#take(8);
    return at === null ? 0 : Number(this.#view.getBigInt64(at, true));
  }

  bytes(count: number): Uint8Array {
    const at = this.#take(count);
    return at === null ? new Uint8Array(0) : this.#bytes.subarray(at, at + count);
  }

  i32s(count: number): Int32Array {
    const at = this.#take(4 * count);
    return at === null ? new Int32Array(0) : Int32Array.from({ length: count }, (_, i) => this.#view.getInt32(at + 4 * i, true));
  }

  f32s(count: number): Float32Array {
    const at = this.#take(4 * count);
    return at === null ? new Float32Array(0) : Float32Array.from({ length: count }, (_, i) => this.#view.getFloat32(at + 4 * i, true));
  }

  #take(count: number): number | null {
    const at = this.#at;
    if (!this.#isWhole || count > this.#bytes.byteLength - at) {
      this.#isWhole = false;
      return null;
    }
    this.#at += count;
    return at;
  }
}

function joinedTokens(parts: readonly Int32Array[]): Int32Array {
  const tokens = new Int32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    tokens.set(part, at);
    at += part.length;
  }
  return tokens;
}

/** Journals before the first token may say nothing of them. */
function joinedLogprobs(parts: readonly (Logprobs | null)[]): Logprobs | null {
  const kept = parts.filter((part) => part !== null);
  const top = parts.at(-1)?.top;
  if (top === undefined) return null;
  return {
    top,
    tokens: Float32Array.from(kept.flatMap(({ tokens }) => [...tokens])),
    topIds: Int32Array.from(kept.flatMap(({ topIds }) => [...topIds])),
    topValues: Float32Array.from(kept.flatMap(({ topValues }) => [...topValues])),
  };
}

function isCounter(value: number): boolean {
  return value >= 0 && value <= COUNTER_MAX;
}

function astray(): EngineError {
  return damaged('does not follow on the one before it');
}

function damaged(sentence: string): EngineError {
  return checkpointError('damaged', `a journal ${sentence}`);
}
