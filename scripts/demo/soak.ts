#!/usr/bin/env -S npx tsx
/**
 * Measures the published solve rates again: countdown4, (L, W) at CR 1, 2, 4 and 8, against the model card.
 * `npm run test:soak`, or `npx tsx scripts/demo/soak.ts [--problems 96] [--seed 0] [--lengths 128,256,512,1024]`.
 * Writes docs/soak.json and docs/soak.md. A cell passes if score and reads are what another sample of the same chains would give.
 */
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';

import { count } from '../../cli/text.ts';
import { openSession } from '../../engine/job/session.ts';
import { resolve } from '../../engine/model/registry.ts';
import { heldOutProblems } from './settings.ts';

const RATIOS = [1, 2, 4, 8] as const;
const WIDTHS = [1, 2, 4, 8] as const;
const CHAINS = 8;
/** Sixty-four cells share their chains: a bound that a right engine passes and a wrong sampler, verifier or policy does not. */
const STANDARD_ERRORS_MAX = 4;
const READS_DIFFERENCE_MAX = 0.1;

interface Cell {
  readonly compression_ratio: number;
  readonly length: number;
  readonly width: number;
  readonly score: number;
  readonly standard_error: number;
  readonly kv_reads: number;
  readonly card_score: number;
  readonly card_standard_error: number;
  readonly card_kv_reads: number;
  readonly passed: boolean;
}

const { values } = parseArgs({
  options: {
    problems: { type: 'string', default: '96' },
    seed: { type: 'string', default: '0' },
    lengths: { type: 'string', default: '128,256,512,1024' },
  },
});
const problems = heldOutProblems().slice(0, Number(values.problems));
const cells: Cell[] = [];
for (const ratio of RATIOS) {
  for (const length of values.lengths.split(',').map(Number)) cells.push(...(await measure(ratio, length)));
}
const failed = cells.filter((cell) => !cell.passed).length;
const summary = { problems: problems.length, chains: CHAINS, seed: Number(values.seed), passed: cells.length - failed, failed };
writeFileSync('docs/soak.json', `${JSON.stringify({ ...summary, cells }, null, 1)}\n`);
writeFileSync('docs/soak.md', markdown());
process.stdout.write(`${summary.passed} passed, ${summary.failed} failed\n`);
process.exitCode = failed === 0 ? 0 : 1;

/** The card counts the prompt into L; `length` of a job does not. */
async function measure(ratio: number, length: number): Promise<Cell[]> {
  const solvedOf: number[] = [];
  let reads = 0;
  using session = openSession();
  for (const [done, problem] of problems.entries()) {
    const result = await session.generate({
      model: 'countdown',
      prompt: problem.content,
      seed: Number(values.seed) + done,
      budget: { length: length - problem.prompt_ids.length, width: CHAINS, compression_ratio: ratio },
      vote: 'verifier',
      early_stop: false,
    });
    solvedOf.push(result.ballots.filter((ballot) => ballot.verified === true).length);
    reads += result.usage.kv_reads / CHAINS / problems.length;
  }
  const frontier = resolve('countdown', { cr: ratio }).variantCard?.figures?.frontier ?? [];
  const row = WIDTHS.map((width) => {
    const scores = solvedOf.map((solved) => passAt(CHAINS, solved, width));
    const score = mean(scores);
    const error = Math.sqrt(mean(scores.map((s) => (s - score) ** 2)) / Math.max(1, scores.length - 1));
    const card = frontier.find((p) => p.task === 'countdown4' && p.length === length && p.width === width);
    if (card === undefined) throw new Error(`the card has no figure for CR ${ratio}, L ${length}, W ${width}`);
    const near = Math.abs(score - card.score) <= STANDARD_ERRORS_MAX * Math.hypot(error, card.standard_error, 1 / scores.length);
    const sameReads = Math.abs(width * reads - card.kv_reads) <= READS_DIFFERENCE_MAX * card.kv_reads;
    return {
      compression_ratio: ratio, length, width, score, standard_error: error, kv_reads: width * reads,
      card_score: card.score, card_standard_error: card.standard_error, card_kv_reads: card.kv_reads, passed: near && sameReads,
    };
  });
  process.stdout.write(`CR ${ratio}, L ${length}: ${row.map((cell) => `${cell.score.toFixed(3)} (card ${cell.card_score.toFixed(3)})`).join(', ')}\n`);
  return row;
}

/** Unbiased over the subsets of `n` chains, `solved` of which solve the problem. */
function passAt(n: number, solved: number, width: number): number {
  let none = 1;
  for (let i = 0; i < width; i += 1) none *= Math.max(0, n - solved - i) / (n - i);
  return 1 - none;
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length);
}

function markdown(): string {
  const line = (cell: Cell) =>
    `| ${cell.compression_ratio} | ${cell.length} | ${cell.width} | ${cell.score.toFixed(3)} (${cell.standard_error.toFixed(3)}) | ${cell.card_score.toFixed(3)} (${cell.card_standard_error.toFixed(3)}) ` +
    `| ${count(cell.kv_reads)} | ${count(cell.card_kv_reads)} | ${cell.passed ? 'yes' : '**no**'} |`;
  return [
    '# Solve rates, measured again',
    '',
    `countdown4, ${problems.length} held-out problems, ${CHAINS} chains each, temperature 1, first seed ${values.seed}; pass@all with its standard error. Written by`,
    '`npm run test:soak`; the card is models/countdown/RESULTS.md, another sampler over the same weights and problems. A cell agrees if its',
    `score is within ${STANDARD_ERRORS_MAX} standard errors of the card's and its KV reads within ${100 * READS_DIFFERENCE_MAX}%.`,
    '',
    '| CR | L | W | solved | card | KV reads | card | agrees |',
    '|---|---|---|---|---|---|---|---|',
    ...cells.map(line),
    '',
  ].join('\n');
}
