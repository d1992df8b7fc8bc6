/**
 * Writes models/countdown/model.json: digests and sizes from the files, figures from RESULTS.md, policies from each config.json.
 * Usage: npx tsx scripts/make-model-json.ts [--check]   (--check: exit 1 if the file would change)
 */
import { createHash } from 'node:crypto';
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Card, type Figures, type FrontierPoint, type VariantCard, parseCard } from '../engine/model/card.ts';

const MODEL = join(import.meta.dirname ?? '.', '..', 'models', 'countdown');
const VARIANTS = { dense: 'vanilla', cr2: 'DMS CR2', cr4: 'DMS CR4', cr8: 'DMS CR8' } as const;

const results = readFileSync(join(MODEL, 'RESULTS.md'), 'utf8');
const sha256 = (bytes: Uint8Array | string) => createHash('sha256').update(bytes).digest('hex');

/** Cells of every row of the table under the heading that starts with `title`. */
function table(title: string): string[][] {
  const section = results.split(/\n(?=\*\*)/).find((part) => part.startsWith(title));
  if (section === undefined) throw new Error(`RESULTS.md has no table ${title}`);
  const rows = section.split('\n').filter((line) => line.startsWith('|'));
  return rows.slice(2).map((line) => line.split('|').slice(1, -1).map((cell) => cell.trim()));
}

function figuresOf(run: string): Figures['tasks'] {
  return Object.fromEntries(['countdown3', 'countdown4', 'eval'].map((task) => {
    const row = table(`**${task}**: one chain`).find(([name]) => name === run);
    if (row === undefined) throw new Error(`no ${task} row for ${run}`);
    const [problems = '', chains = ''] = row[1]?.split(' x ') ?? [];
    const [solved, finished, tokens, reads, cr, , peak] = row.slice(2).map(Number);
    return [task, {
      problems: Number(problems), chains: Number(chains), solve_rate: solved ?? NaN, finished: finished ?? NaN, tokens: tokens ?? NaN,
      kv_reads: reads ?? NaN, achieved_cr: cr ?? NaN, peak_kv_tokens: peak ?? NaN,
    }];
  }));
}

/** The countdown4 rows, W = 1..8, and the 32 short chains where they were run. */
function frontierOf(run: string): FrontierPoint[] {
  const widths = [1, 2, 4, 8, 16, 32];
  const points = table('**countdown4**: pass@all').flatMap(([name, length, ...cells]) => {
    const many = name === `${run}, many short chains`;
    if (name !== run && !(many && length === '128')) return [];
    return cells.flatMap((cell, i): FrontierPoint[] => {
      const match = /^([\d.]+) \(([\d.]+)\), ([\d.]+)k$/.exec(cell);
      const width = widths[i] ?? 0;
      if (match === null || (many && width <= 8)) return [];
      return [{
        task: 'countdown4', metric: 'pass_at_all', length: Number(length), width, score: Number(match[1]),
        standard_error: Number(match[2]), kv_reads: Math.round(Number(match[3]) * 1_000),
      }];
    });
  });
  return points.sort((a, b) => a.length - b.length || a.width - b.width);
}

function variantOf(directory: keyof typeof VARIANTS): VariantCard {
  const config = JSON.parse(readFileSync(join(MODEL, directory, 'config.json'), 'utf8')) as Record<string, number | undefined>;
  const tasks = figuresOf(VARIANTS[directory]);
  const dms = config.dms_window_size !== undefined;
  return {
    compression_ratio: config.dms_cr ?? 1,
    directory,
    policy: {
      name: dms ? 'dms_borrowed' : 'dense',
      window: config.dms_window_size ?? 0,
      alpha_scale: config.dms_alpha_scale ?? 0,
      alpha_offset: config.dms_initial_alpha_offset ?? 0,
    },
    files: readdirSync(join(MODEL, directory)).sort().map((path) => {
      const bytes = readFileSync(join(MODEL, directory, path));
      return { path, bytes: bytes.length, sha256: sha256(bytes) };
    }),
    figures: {
      kept_fraction: dms ? Number((1 / (tasks.countdown4?.achieved_cr ?? 1)).toFixed(4)) : 1,
      kept_fraction_task: 'countdown4',
      tasks,
      frontier: frontierOf(VARIANTS[directory]),
    },
  };
}

const read = (path: string) => readFileSync(join(MODEL, path));
const tokenizers = new Set(Object.keys(VARIANTS).map((v) => sha256(read(`${v}/tokenizer.json`)) + sha256(read(`${v}/tokenizer_config.json`))));
if (tokenizers.size !== 1) throw new Error('the variants do not share one tokenizer');
const template = (JSON.parse(read('cr8/tokenizer_config.json').toString()) as { chat_template: string }).chat_template;

const card: Card = {
  format: 1,
  name: 'countdown',
  description: 'A 0.8M-parameter Qwen3 that plays Countdown by writing its search: a test model for inference-time scaling.',
  source: 'Trained from scratch by scripts/train (synthetic data, no pretrained weights).',
  licence: 'Apache-2.0',
  tokenizer_sha256: sha256(read('cr8/tokenizer.json')),
  template_sha256: sha256(template),
  default_variant: 'cr8',
  task: {
    answer: { rule: 'after', marker: 'answer' },
    verifier: 'countdown',
    vote: 'verifier',
    thinking: { open: '<think>', close: '</think>' },
  },
  variants: Object.fromEntries((Object.keys(VARIANTS) as (keyof typeof VARIANTS)[]).map((v) => [v, variantOf(v)])),
};

const text = `${JSON.stringify(card, null, 1)}\n`;
parseCard(text, 'generated');
const path = join(MODEL, 'model.json');
if (process.argv.includes('--check')) {
  if (readFileSync(path, 'utf8') !== text) {
    console.error(`${path} is not what its files say; run: npx tsx scripts/make-model-json.ts`);
    process.exit(1);
  }
} else {
  writeFileSync(path, text);
  console.log(`${path}: ${Object.keys(card.variants).join(', ')}`);
}
