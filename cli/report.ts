/** What a finished job looks like to a reader: the answer, the ballots, what it cost. Pure: returns text. */
import type { Ballot, JobResult, ModelTiming } from '../engine/job/generate.ts';
import type { Resumption, StoredResult } from '../engine/job/slice.ts';
import { STATE } from './live.ts';
import { bytes, count, plural, ratio, safe, seconds, table, type Paint } from './text.ts';

export interface ReportOptions {
  readonly paint: Paint;
  readonly showChains: boolean;
}

/**
 * Of a stored job also how its slices began.
 * @example process.stdout.write(report(result, { paint, showChains: false }))
 */
export function report(result: JobResult & Partial<Pick<StoredResult, 'resumed'>>, { paint, showChains }: ReportOptions): string {
  // With one chain and nothing elected the text is all there is.
  const parts = showChains || (result.answer === null && result.chains.length === 1) ? [chainsOf(result, paint)] : [];
  parts.push(answerOf(result, paint));
  if (result.chains.length > 1) parts.push(ballotTable(result.ballots, paint));
  parts.push(usageTable(result, paint));
  return `${parts.join('\n\n')}\n`;
}

function answerOf(result: JobResult, paint: Paint): string {
  if (result.answer === null) return paint.yellow('No answer: no chain gave one that counts.');
  return `${paint.dim('Answer')}  ${paint.bold(safe(result.answer))}`;
}

/** One row for each distinct answer, the most votes first; chains without one come last. */
export function ballotTable(ballots: readonly Ballot[], paint: Paint): string {
  const groups = new Map<string | null, Ballot[]>();
  for (const ballot of ballots) groups.set(ballot.key, [...(groups.get(ballot.key) ?? []), ballot]);
  const sorted = [...groups.values()].sort((a, b) => Number(a[0]?.key === null) - Number(b[0]?.key === null) || b.length - a.length);
  const verified = ballots.some((ballot) => ballot.verified !== null);
  const rows = sorted.map((group) => {
    const first = group[0];
    const answer = first === undefined || first.key === null ? '(none)' : safe(first.answer ?? first.key, { line: true });
    const verdict = first?.verified === true ? 'correct' : first?.verified === false ? 'wrong' : '';
    return [answer, String(group.length), ...(verified ? [verdict] : []), ranges(group.map((ballot) => ballot.chain))];
  });
  return table([['ballot', 'votes', ...(verified ? ['verifier'] : []), 'chains'], ...rows], paint);
}

/** @example ranges([0, 1, 2, 5]) // '0-2, 5' */
function ranges(sorted: readonly number[]): string {
  const runs: [number, number][] = [];
  for (const n of sorted) {
    const last = runs.at(-1);
    if (last !== undefined && n === last[1] + 1) last[1] = n;
    else runs.push([n, n]);
  }
  return runs.map(([from, to]) => (from === to ? `${from}` : `${from}-${to}`)).join(', ');
}

function usageTable({ usage, timing, chains, resumed = [] }: Parameters<typeof report>[0], paint: Paint): string {
  const decode = `${count(timing.tokens_per_second)} tokens/s`;
  const rows: [string, string][] = [
    ['tokens', `${count(usage.completion_tokens)} in ${plural(chains.length, 'chain')} after a prompt of ${count(usage.prompt_tokens)}`],
    ['KV reads', `${count(usage.kv_reads)}, ${ratio(usage.read_ratio)} fewer than dense (prefill: ${count(usage.kv_reads_prefill)})`],
    ['peak KV', `${plural(usage.peak_kv_tokens, 'token')}, ${bytes(usage.peak_kv_bytes)}`],
    ['compression', `${ratio(usage.compression_ratio)} at the end`],
    ['time', `${seconds(timing.decode_ms)} at ${decode}, load ${seconds(timing.load_ms)}, prefill ${seconds(timing.prefill_ms)}`],
    ...(resumed.length === 0 ? [] : [resumedRow(resumed)]),
    ...(timing.model !== undefined && timing.model.fetched_bytes > 0 ? [fetchedRow(timing.model)] : []),
    ['machine', `${timing.isa}, ${plural(timing.threads, 'thread')}`],
  ];
  const width = Math.max(...rows.map(([name]) => name.length));
  return rows.map(([name, value]) => `${paint.dim(name.padEnd(width))}  ${value}`).join('\n');
}

/** The last time in words, and what all of them computed a second time. */
function resumedRow(resumed: readonly Resumption[]): [string, string] {
  const last = resumed.at(-1)!;
  const again = resumed.reduce((sum, { tokens_recomputed }) => sum + tokens_recomputed, 0);
  const how = `${last.outcome} at step ${count(last.from_step)}${last.reason === null ? '' : ` (${safe(last.reason, { line: true })})`}`;
  return ['resumed', `${resumed.length === 1 ? '' : `${resumed.length} times, last `}${how}; ${plural(again, 'token')} computed again`];
}

function fetchedRow({ fetched_bytes, resolve_ms, fetch_ms, verify_ms, map_ms, warm_ms }: ModelTiming): [string, string] {
  const phases = `resolve ${seconds(resolve_ms)}, verify ${seconds(verify_ms)}, map ${seconds(map_ms)}, warm ${seconds(warm_ms)}`;
  return ['model', `${bytes(fetched_bytes)} fetched in ${seconds(fetch_ms)}, ${phases}`];
}

function chainsOf({ chains }: JobResult, paint: Paint): string {
  return chains
    .map((chain, i) => {
      const head = `chain ${i}: ${STATE[chain.finish_reason]} after ${plural(chain.tokens.length, 'token')}`;
      return `${paint.bold(head)}\n${safe(chain.text).trim()}`;
    })
    .join('\n\n');
}
