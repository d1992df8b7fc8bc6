/**
 * What a chain had used when it had fewer tokens than now: a vote that is decided cuts the chains of shards that had already gone further. All of it
 * follows from the eviction decisions in the journals, so that the bill is that of a run which stopped there (DESIGN.md 3 and 4).
 */
import { assert } from '../core/assert.ts';
import type { ChainReport, Logprobs, ModelInfo } from '../runtime/native.ts';
import type { Decisions } from './decode-journals.ts';

type Policy = Pick<ModelInfo['policy'], 'window' | 'kvzap'>;

/** The chain as it was when it had `tokens` tokens, all of them fed, and was ended there. @param index within the job. */
export function cutChain(chain: ChainReport, tokens: number, index: number, decisions: Decisions, headCount: number, policy: Policy): ChainReport {
  assert(tokens <= chain.tokens.length, 'a chain is cut at a token that it has');
  const { promptTokens } = decisions;
  const lives = livesOf(chain, index, decisions, headCount, policy);
  const fed = promptTokens + tokens;
  const until = lives.slice(0, tokens + 1);
  const decodePeakSum = Math.max(...until);
  return {
    ...shortened(chain, tokens),
    fed,
    liveSum: until[tokens] ?? 0,
    decodePeakSum,
    peakSum: Math.max(decisions.prefillPeak, decodePeakSum),
    readSum: sumOf(until.slice(1)),
    denseReadSum: headCount * (triangle(fed) - triangle(promptTokens)),
  };
}

/** Its tokens alone: what it had used is not asked. */
export function shortened(chain: ChainReport, tokens: number): ChainReport {
  return { ...chain, tokens: chain.tokens.subarray(0, tokens), logprobs: chain.logprobs === null ? null : firstOf(chain.logprobs, tokens), finish: 'ended', stopBytes: null };
}

function firstOf({ top, tokens, topIds, topValues }: Logprobs, count: number): Logprobs {
  return { top, tokens: tokens.subarray(0, count), topIds: topIds.subarray(0, count * top), topValues: topValues.subarray(0, count * top) };
}

/** Live entries after the prompt and after each token that was fed, summed over heads: backwards from the last, which the journal says. */
function livesOf(chain: ChainReport, index: number, decisions: Decisions, headCount: number, policy: Policy): readonly number[] {
  const { promptTokens } = decisions;
  const lives = Array.from({ length: chain.fed - promptTokens + 1 }, () => 0);
  let live = chain.liveSum;
  for (let fed = chain.fed; fed >= promptTokens; fed--) {
    lives[fed - promptTokens] = live;
    live += evictedAt(fed - 1 - (policy.window + 1), index, decisions, policy) - headCount;
  }
  // The journal counted them one by one.
  assert(sumOf(lives.slice(1)) === chain.readSum && Math.max(...lives) === chain.decodePeakSum, 'eviction decisions say what their journal counted');
  return lives;
}

/** Of how many heads the token at a position that leaves the ring goes for good. */
function evictedAt(position: number, index: number, { heads, promptTokens, prompt, chains }: Decisions, { window, kvzap }: Policy): number {
  if (position < 0 || heads === 0) return 0;
  // Where only the prompt is pruned, its last `window` tokens never are.
  if (kvzap !== null && !kvzap.decode && position < promptTokens && position >= promptTokens - window) return 0;
  // DMS decides about a token when the next one comes.
  const row = kvzap === null ? position + 1 : position;
  const rowBytes = Math.ceil(heads / 8);
  const [bits, at] = row < promptTokens ? [prompt, row * rowBytes] : [chains.get(index), (row - promptTokens) * rowBytes];
  assert(bits !== undefined && at + rowBytes <= bits.byteLength, 'a token that has left the ring was decided about');
  let count = 0;
  for (const byte of bits.subarray(at, at + rowBytes)) count += onesOf(byte);
  return count;
}

function onesOf(byte: number): number {
  let count = 0;
  for (let left = byte; left > 0; left &= left - 1) count++;
  return count;
}

function sumOf(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0);
}

function triangle(n: number): number {
  return (n * (n + 1)) / 2;
}
