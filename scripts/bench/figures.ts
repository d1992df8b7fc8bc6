/** `npm run bench -- figures CHECKPOINT.json LARGE.json`: docs/checkpoint-figures.md and .svg from what two runs printed. */
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import { bytes, count } from '../../cli/text.ts';
import type { CheckpointFigures } from './checkpoint.ts';
import { type Conditions, conditionLine, ROOT } from './conditions.ts';
import type { Cut } from './cuts.ts';
import { ACCELERATOR_FLOPS, type LargeModel, ROUNDS, STORE_GB_PER_S } from './large-model.ts';
import type { BytesByKind } from './measured-store.ts';
import { picture } from './picture.ts';
import type { Resume } from './resumes.ts';

interface Run {
  readonly conditions: Conditions;
  readonly load_after: number;
}
export type CheckpointRun = CheckpointFigures & Run;
export type LargeRun = LargeModel & Run;

/** Each argument: a file whose last line is what a run printed last. */
export function writeFigures([checkpointFile = '', largeFile = '']: readonly string[]): void {
  const checkpoint = lastLine(checkpointFile) as CheckpointRun;
  const large = lastLine(largeFile) as LargeRun;
  writeFileSync(path.join(ROOT, 'docs', 'checkpoint-figures.md'), markdown(checkpoint, large));
  writeFileSync(path.join(ROOT, 'docs', 'checkpoint-figures.svg'), picture(checkpoint));
}

function lastLine(file: string): unknown {
  return JSON.parse(readFileSync(file, 'utf8').trimEnd().split('\n').at(-1) ?? '');
}

function markdown(checkpoint: CheckpointRun, large: LargeRun): string {
  const { cuts, resumes, waits, transfers, skipped } = checkpoint;
  return `${[
    '# What a checkpoint costs',
    '![Bytes stored and time to go on](checkpoint-figures.svg)',
    'Written by `npm run bench -- figures`; every number is of one run, on a machine that was shared with other work. Times are medians of few rounds; sizes do not depend on the machine.',
    '```\nnpm run bench -- checkpoint > checkpoint.txt\nnpm run bench -- large > large.txt\nnpm run bench -- figures checkpoint.txt large.txt\n```',
    `Checkpoint: ${conditionLine(checkpoint.conditions)}; load at the end ${checkpoint.load_after}.\nLarge: ${conditionLine(large.conditions)}; load at the end ${large.load_after}.`,
    ...skipped.map((what) => `Skipped: ${what}.`),
    '## Targets',
    targets(checkpoint, large),
    `A restore fills memory that the kernel has to clear first: at 2 MiB a time that takes about as long as copying. A resume has it cleared (made present) while the bytes are still on\ntheir way, so that nobody waits for it; the processor does it all the same, which is the row "counted". The baselines are of one thread, as the restore is. At this load the\nversitygw row is one sample of a wide spread; the native rows are processor time, median of ${ROUNDS}, and still follow what else uses the memory bus.`,
    '## Bytes of a cut',
    'The bundled model (F32 cache, 2,048 B a token dense, window 16 at CR 8), one save of everything. "Live" is K and V that attention still reads.\nBytes per generated token and chain; the journal holds an id, one eviction bit per KV head, and the counters.',
    grid(['variant', 'chains x tokens', 'live KV', 'segments', 'tails', 'journal', 'raw / live', 'lossless / raw', 'raw, B per token and chain'], cuts.map(cutRow)),
    '## Going on against computing again',
    'From opening the store to the first new tokens that a caller sees (16 steps), model loading included, in one process; "again" is the same job\nresumed from its journals alone. A resume goes on 16 tokens after the one before, so the median is of a job a few steps further than the row says.',
    grid(['store', 'variant', 'chains x tokens', 'held in the store', 'go on', 'of it reading', 'again', 'again / go on'], resumes.map(resumeRow)),
    'The last length at which computing again was not slower decides the next table. With one chain the two are within what a busy machine adds:\nopening the model is most of both. Not a law, but this run.',
    crossing(resumes),
    '## Waiting for saves',
    'One thread, a filesystem store. Saves are encoded between two steps and written in the background; `waited` is the first part alone, as `timing.save_ms` says it.',
    grid(['variant', 'chains x tokens', 'delta every', 'waited', 'decoding', 'share', 'decoding without a store'], waits.map((w) => [
      w.variant, `${w.width} x ${w.tokens}`, `${w.delta_tokens} tokens, if the last is written`, ms(w.save_ms), ms(w.decode_ms), percent(w.save_ms / w.decode_ms), ms(w.unsaved_decode_ms),
    ])),
    '## A large cut, out and back',
    'Dense, one thread, wall-clock, GB/s (1e9) of stored bytes. Restore is one call from JavaScript into fresh memory;\nread + restore is both as a resume does them, with memory made present while objects are read, and in brackets without that.\nWall-clock rates suffer from whatever else runs: compare within a row, and take native rates from the next table.',
    grid(['store', 'cut', 'memcpy', 'memcpy to fresh', 'SHA-256', 'put', 'plain ranged GETs', 'get', 'restore, CRC', 'restore, digest', 'read + restore', 'time of it / plain'], transfers.map((t) => [
      t.store, `${bytes(t.bytes)}, ${t.objects} objects`, gb(t.memcpy), gb(t.memcpy_to_fresh), gb(t.sha256), gb(t.put),
      t.plain_get === null ? '' : gb(t.plain_get), gb(t.get), gb(t.restore_crc), gb(t.restore_digest), `${t.read_restore.toFixed(3)} (${t.read_restore_unprepared.toFixed(3)})`, t.over_plain === null ? '' : t.over_plain.toFixed(2),
    ])),
    '## A shape like Qwen3-8B',
    `36 layers, 8 KV heads of 128, BF16; synthetic pages, processor time of ${large.threads} thread(s), median of ${ROUNDS}. One chain's delta after 2,048 tokens: pages, and a tail with the whole ring. GB/s.\n"Prepare" makes the memory of a restore present, and "prepared" is what is left to do then; without it a restore does both.`,
    grid(['variant', 'window', 'delta', 'memcpy', 'memcpy to fresh', 'BLAKE3', 'save', 'restore, CRC', 'of memcpy (of fresh)', 'restore, digest', 'of BLAKE3', 'prepare', 'prepared, CRC', 'of memcpy', 'prepared, digest', 'of BLAKE3', 'wait at 60 tok/s'], large.deltas.map(({ gb_per_s: r, ...d }) => [
      d.variant, `${d.window}`, mb(d.bytes), gb(r.memcpyWarm), gb(r.memcpyFresh), gb(r.blake3), gb(r.save), gb(r.restoreCrc),
      `${(r.restoreCrc / r.memcpyWarm).toFixed(2)} (${(r.restoreCrc / r.memcpyFresh).toFixed(2)})`, gb(r.restoreDigest), (r.restoreDigest / r.blake3).toFixed(2),
      gb(r.prepare), gb(r.preparedCrc), (r.preparedCrc / r.memcpyWarm).toFixed(2), gb(r.preparedDigest), (r.preparedDigest / r.blake3).toFixed(2), percent(d.save_share),
    ])),
    `Sizes are computed from the measured ones (a survivor costs the same in every page); prefill is the formula of a GPU at ${ACCELERATOR_FLOPS / 1e12} TFLOP/s effective, not measured;\nstore rates are stated, round trips not counted. Loading is sooner where the store does better than the break-even.`,
    grid(['context', 'dense', 'CR 8', 'dense / CR 8', ...STORE_GB_PER_S.map((rate) => `load CR 8 at ${rate} GB/s`), 're-prefill', 'break-even dense', 'break-even CR 8'], large.sizes.map((s) => [
      count(s.tokens), mb(s.dense_bytes), mb(s.cr8_bytes), (s.dense_bytes / s.cr8_bytes).toFixed(1), ...STORE_GB_PER_S.map((rate) => `${(s.cr8_bytes / rate / 1e9).toFixed(2)} s`),
      `${s.prefill_s.toFixed(2)} s`, `${s.break_even_dense.toFixed(2)} GB/s`, `${s.break_even_cr8.toFixed(2)} GB/s`,
    ])),
  ].join('\n\n')}\n`;
}

/** The worst case of each. */
function targets({ transfers }: CheckpointRun, { deltas }: LargeRun): string {
  const worst = (of: (delta: LargeRun['deltas'][number]) => number) => Math.min(...deltas.map(of));
  const crc = worst(({ gb_per_s: r }) => r.preparedCrc / r.memcpyWarm);
  const fresh = worst(({ gb_per_s: r }) => r.restoreCrc / r.memcpyFresh);
  const digest = worst(({ gb_per_s: r }) => r.preparedDigest / r.blake3);
  const counted = worst(({ gb_per_s: r }) => r.restoreDigest / r.blake3);
  const share = Math.max(...deltas.map(({ save_share }) => save_share));
  const over = transfers.map(({ over_plain }) => over_plain).find((value) => value !== null);
  const verdict = (met: boolean) => (met ? 'met' : '**missed**');
  return grid(['target', 'this run', ''], [
    ['restore verified by CRC, of memcpy into memory as fresh: 0.6', fresh.toFixed(2), verdict(fresh >= 0.6)],
    ['the same into memory made present while the bytes were read, of memcpy into memory that is there: 0.6', crc.toFixed(2), verdict(crc >= 0.6)],
    ['restore with keyed digest into memory made present while the bytes were read, of BLAKE3 alone: 0.8', digest.toFixed(2), verdict(digest >= 0.8)],
    ['the same with making it present counted', counted.toFixed(2), verdict(counted >= 0.8)],
    ['read and restored from versitygw, over plain ranged GETs: 1.3', over === undefined ? 'not measured' : (over ?? NaN).toFixed(2), over === undefined ? '' : verdict((over ?? NaN) <= 1.3)],
    ['wait for a delta every 2,048 tokens of a shape like Qwen3-8B, one chain: 2 %', percent(share), verdict(share < 0.02)],
  ]);
}

function cutRow({ variant, width, tokens, live_kv_bytes: live, raw, lossless }: Cut): string[] {
  const total = ({ segment, tail, journal }: Cut['raw']) => segment + tail + journal;
  return [
    variant, `${width} x ${tokens}`, count(live), count(raw.segment), count(raw.tail), count(raw.journal), (total(raw) / live).toFixed(2),
    (total(lossless) / total(raw)).toFixed(2), [raw.segment, raw.tail, raw.journal].map((part) => count(part / width / tokens)).join(' + '),
  ];
}

function resumeRow(r: Resume): string[] {
  return [r.store, r.variant, `${r.width} x ${r.tokens}`, bytes(sum(r.held)), ms(r.resume_ms), ms(r.read_ms), ms(r.recompute_ms), (r.recompute_ms / r.resume_ms).toFixed(1)];
}

/** The shortest job from which on going on is sooner, row by row. */
function crossing(resumes: readonly Resume[]): string {
  const groups = [...new Set(resumes.map(group))];
  const table = groups.map((name) => {
    const rows = resumes.filter((r) => group(r) === name);
    const lost = rows.findLastIndex((r) => r.recompute_ms <= r.resume_ms);
    const from = rows[lost + 1];
    return [name, from === undefined ? 'not within these lengths' : lost < 0 ? `at every length here (${from.tokens} and more)` : `from ${from.tokens} tokens on`];
  });
  return grid(['store, variant, chains', 'going on is sooner'], table);
}

const group = ({ store, variant, width }: Resume) => `${store}, ${variant}, ${width}`;
const sum = (held: BytesByKind) => Object.values(held).reduce((total, part) => total + part, 0);
const ms = (value: number) => `${value.toFixed(value < 10 ? 1 : 0)} ms`;
const gb = (rate: number) => rate.toFixed(2);
const mb = (n: number) => `${(n / 1e6).toFixed(1)} MB`;
const percent = (share: number) => `${(100 * share).toFixed(2)} %`;

function grid(head: readonly string[], rows: readonly (readonly string[])[]): string {
  return [head, head.map(() => '---'), ...rows].map((row) => `| ${row.join(' | ')} |`).join('\n');
}
