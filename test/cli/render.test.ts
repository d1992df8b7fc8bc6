/** What the live view and the report draw, without a model: pictures of hand-written Progress and JobResult values. */
import { describe, expect, test } from 'vitest';

import { exitCodeOf, failureLine } from '../../cli/exit.ts';
import { weightMix } from '../../cli/inspect.ts';
import { openView, renderFrame } from '../../cli/live.ts';
import { report } from '../../cli/report.ts';
import { bar, bytes, canRedraw, cells, count, paintFor, safe, table, tailOf, type Terminal } from '../../cli/text.ts';
import { EngineError } from '../../engine/core/errors.ts';
import type { JobResult, Progress } from '../../engine/job/generate.ts';

const plain = paintFor({});
const colours = paintFor({ isTTY: true, hasColors: () => true });

function progressOf(width: number, finished: readonly number[] = []): Progress {
  const chains = Array.from({ length: width }, (_, i) => ({
    tokens: 100 + i,
    live_kv_tokens: 25.5,
    compression_ratio: 4.1,
    finish_reason: finished.includes(i) ? ('stop' as const) : null,
    tail: `13 + 8 = 21 ;\n20 * ${i}`,
  }));
  return { phase: 'decode', chains, kv_reads: 29_000, kv_read_budget: 58_000 };
}

const frame = (progress: Progress, terminal: Terminal, paint = plain) =>
  renderFrame(progress, { terminal, title: 'countdown@cr8', length: 512, rate: 1234 }, paint).split('\n');

describe('the live view', () => {
  test('shows tokens, live KV, compression, state and the newest text of each chain', () => {
    const [title, first, second] = frame(progressOf(2, [1]), { columns: 120, rows: 24 });
    expect(title).toBe('countdown@cr8');
    expect(first).toMatch(/^ {2}0 [█▏▎▍▌▋▊▉░]{20} 100\/512 {3}26 live {2}4\.1x {2}thinking {5}13 \+ 8 = 21 ; 20 \* 0$/);
    expect(second).toContain('ended');
  });

  test('ends with the budget and the rate', () => {
    expect(frame(progressOf(2), { columns: 120, rows: 24 }).at(-1)).toMatch(/KV reads █{10}░{10} 29,000 of 58,000 \(50%\) {2}1,234 tokens\/s/);
  });

  test('is never wider or taller than the terminal', () => {
    for (const [columns, rows] of [[60, 12], [80, 24], [200, 50]] as const) {
      const lines = frame(progressOf(64, [0, 1, 2]), { columns, rows });
      expect(lines.length).toBeLessThan(rows);
      expect(Math.max(...lines.map(cells))).toBeLessThan(columns);
    }
  });

  test('with more chains than lines, the running ones are shown and the rest counted', () => {
    const lines = frame(progressOf(20, [0, 1, 2, 3, 4]), { columns: 80, rows: 12 });
    expect(lines[1]).toMatch(/^ {2}5 /);
    expect(lines.at(-2)).toContain('and 14 more chains');
  });

  test('text of a model cannot reach the terminal as escape codes', () => {
    const progress = progressOf(1);
    const hostile = { ...progress, chains: [{ ...progress.chains[0]!, tail: '\u001b[2J\u001b]0;owned\u0007 hi \u009b31m \u202egnp' }] };
    expect(frame(hostile, { columns: 120, rows: 24 }).join('')).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u202e]/);
  });

  test('colours only a terminal that has them', () => {
    expect(frame(progressOf(1), { columns: 80, rows: 24 }, colours).join('')).toContain('\u001b[');
    expect(paintFor({ isTTY: true, hasColors: () => false }).bold('x')).toBe('x');
    expect(canRedraw({ isTTY: true }, 'dumb')).toBe(false);
    expect(canRedraw({}, 'xterm')).toBe(false);
  });

  test('away from a terminal it is a few plain lines, one for each chain that ends', () => {
    const lines: string[] = [];
    const stream = { write: (text: string) => lines.push(text) > 0 } as unknown as NodeJS.WriteStream;
    const view = openView({ stream, title: 'countdown@cr8', length: 512, now: () => 0, term: undefined });
    view.update({ ...progressOf(0), phase: 'load' });
    for (let i = 0; i < 100; i += 1) view.update(progressOf(2, i > 50 ? [1] : []));
    view.update({ ...progressOf(2, [0, 1]), phase: 'done' });
    view.close();
    expect(lines).toEqual([
      'loading countdown@cr8\n',
      'decoding 2 chains of at most 512 tokens\n',
      'chain 1: ended after 101 tokens, 26 live (4.1x)\n',
      'chain 0: ended after 100 tokens, 26 live (4.1x)\n',
      'done in 0 ms, KV reads 29,000 of 58,000 (50%)\n',
    ]);
  });
});

describe('the report', () => {
  const ballot = (chain: number, key: string | null, verified: boolean | null) => ({ chain, answer: key, key, verified });
  const result: JobResult = {
    answer: '4 * 20 - 21',
    ballots: [ballot(0, null, null), ballot(1, '4 * 20 - 21', true), ballot(2, '4 + 20', false), ballot(3, '4 * 20 - 21', true)],
    chains: [0, 1, 2, 3].map(() => ({ tokens: [1, 2, 3], text: 'so\n4 * 20', finish_reason: 'stop', answer: null, live_kv_tokens: 17 })),
    usage: { prompt_tokens: 9, completion_tokens: 1204, kv_reads: 41_233.4, kv_reads_prefill: 45, peak_kv_tokens: 174, peak_kv_bytes: 356_352, compression_ratio: 5.93, read_ratio: 6.1 },
    timing: { load_ms: 80, prefill_ms: 3, decode_ms: 1480, tokens_per_second: 813, kv_allocated_bytes: 1, weight_bytes: 1, threads: 2, isa: 'avx2' },
  };

  test('puts the answer first, then the ballots with most votes, chains without an answer last', () => {
    const lines = report(result, { paint: plain, showChains: false }).split('\n');
    expect(lines[0]).toBe('Answer  4 * 20 - 21');
    const ballots = lines.slice(2, 6).map((line) => line.split(/ {2,}/));
    expect(ballots).toEqual([
      ['ballot', 'votes', 'verifier', 'chains'],
      ['4 * 20 - 21', '2', 'correct', '1, 3'],
      ['4 + 20', '1', 'wrong', '2'],
      ['(none)', '1', '0'],
    ]);
  });

  test('names many chains by their ranges', () => {
    const many = { ...result, ballots: Array.from({ length: 64 }, (_, i) => ballot(i, i === 7 ? 'x' : null, null)), chains: Array.from({ length: 64 }, () => result.chains[0]!) };
    expect(report(many, { paint: plain, showChains: false })).toContain('(none)     63  0-6, 8-63\n');
  });

  test('says what it cost', () => {
    const text = report(result, { paint: plain, showChains: true });
    expect(text).toContain('1,204 in 4 chains after a prompt of 9');
    expect(text).toContain('41,233, 6.1x fewer than dense');
    expect(text).toContain('174 tokens, 348.0 KiB');
    expect(text).toContain('chain 2: ended after 3 tokens\nso\n4 * 20');
  });

  test('says how its slices began, and how many tokens were computed again', () => {
    const slice = (tokens: number, reason: string | null) => ({ slice: 1, outcome: 'restored' as const, reason, from_step: 1050, tokens_recomputed: tokens });
    const line = (resumed: readonly ReturnType<typeof slice>[]) => report({ ...result, resumed }, { paint: plain, showChains: false }).split('\n').find((text) => text.startsWith('resumed'));
    expect(line([])).toBeUndefined();
    expect(line([slice(1, null)])).toMatch(/^resumed +restored at step 1,050; 1 token computed again$/);
    expect(line([slice(100, null), slice(0, 'damaged')])).toMatch(/^resumed +2 times, last restored at step 1,050 \(damaged\); 100 tokens computed again$/);
  });

  test('says so when there is no answer', () => {
    expect(report({ ...result, answer: null }, { paint: plain, showChains: false })).toMatch(/^No answer/);
  });
});

describe('words', () => {
  test('numbers, sizes and bars', () => {
    expect([count(999), count(1000), count(57_933.6), bytes(512), bytes(1536), bytes(3 * 2 ** 30)]).toEqual(['999', '1,000', '57,934', '512 B', '1.5 KiB', '3.0 GiB']);
    expect([bar(0, 4), bar(0.5, 4), bar(1, 4), bar(7, 4)]).toEqual(['░░░░', '██░░', '████', '████']);
  });

  test('wide characters count double, and a tail is cut between characters', () => {
    expect(cells('日本x')).toBe(5);
    expect(tailOf('日本x', 4)).toBe('本x');
    expect(safe('a\nb\tc', { line: true })).toBe('a b c');
  });

  test('tables align numbers to the right', () => {
    expect(table([['name', 'n'], ['a', '5'], ['bcdef', '1,000']])).toBe('name       n\na          5\nbcdef  1,000');
  });
});

test('every failure is one line with its code, and a wrong option is a usage error', () => {
  expect(failureLine(new EngineError('ERR_BUDGET', 'two\n lines.'))).toBe('ruminate: ERR_BUDGET: two lines.');
  expect(failureLine(new TypeError('x'))).toBe('ruminate: ERR_INTERNAL: x');
  expect([new EngineError('ERR_OPTION', ''), new EngineError('ERR_MEMORY', ''), new EngineError('ERR_CANCELLED', ''), new Error('')].map(exitCodeOf)).toEqual([2, 1, 130, 1]);
});

describe('the types of a model\'s weights', () => {
  test('are named with their share of the bytes, the largest first', () => {
    expect(weightMix({ f32: 8, q4_k: 72, q6_k: 20 })).toBe('q4_k 72%, q6_k 20%, f32 8%');
    expect(weightMix({ f32: 1, q8_0: 999 })).toBe('q8_0 100%, f32 <1%');
  });

  test('are one word if they are one', () => {
    expect(weightMix({ bf16: 12_345 })).toBe('bf16');
  });
});
