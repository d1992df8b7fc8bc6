/** scripts/forward.ts, the interface for checks from outside: its options, its file, its one line. */
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';

import { fixture, ROOT, tinyModel } from '../helpers/engine.ts';
import { readSafetensors } from '../helpers/safetensors.ts';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'ruminate-forward-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

function forward(...args: readonly string[]): Promise<Ended> {
  const command = [path.join(ROOT, 'node_modules', 'tsx', 'dist', 'cli.mjs'), path.join(ROOT, 'scripts', 'forward.ts'), ...args];
  return new Promise((resolve) => {
    execFile(process.execPath, command, (error, stdout, stderr) => resolve({ code: typeof error?.code === 'number' ? error.code : 0, stdout, stderr }));
  });
}

const idsOf = (file: string) => [...readSafetensors(fixture(file)).i32('all_ids')].join(',');

test.each(['reference', 'cpu'])('under DMS on %s it writes what the oracle has', async (backend) => {
  const out = path.join(folder, `${backend}.safetensors`);
  const { code, stdout, stderr } = await forward('--model', tinyModel('tiny_qwen3_dms'), '--ids', idsOf('dms_borrowed_w3.safetensors'),
    '--set', 'dms_window_size=3', '--set', 'dms_alpha_per=head', '--set', 'dms_initial_alpha_offset=5', '--prompt-len', '96', '--chunk', '17', '--backend', backend, '--out', out);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  const numbers = JSON.parse(readFileSync(fixture('dms_borrowed_w3.json'), 'utf8')) as Record<string, number>;
  expect(stdout.trimEnd()).not.toContain('\n');
  const line = JSON.parse(stdout) as Record<string, unknown>;
  expect(line).toMatchObject({ policy: 'dms_borrowed', backend });
  for (const key of ['kv_reads_decode', 'kv_reads_all', 'peak_tokens']) expect(line[key]).toBeCloseTo(numbers[key]!, 9);

  const oracle = readSafetensors(fixture('dms_borrowed_w3.safetensors'));
  const written = readSafetensors(out);
  expect(written.names).toEqual(['evict_decision', 'live_count', 'logits']);
  expect(written.u8('evict_decision')).toEqual(oracle.u8('evict_decision'));
  expect(written.i32('live_count')).toEqual(oracle.i32('live_count'));
  expect(written.shape('logits')).toEqual(oracle.shape('logits'));
  const expected = oracle.f32('logits');
  expect(written.f32('logits').every((value, i) => Math.abs(value - expected[i]!) < 1e-3)).toBe(true);
});

test('a dense policy over a DMS model has no decisions, and all ids are the prompt by default', async () => {
  const out = path.join(folder, 'dense.safetensors');
  const { stdout } = await forward('--model', tinyModel('tiny_qwen3_dms'), '--ids', '5,17,99', '--policy', 'dense', '--kv', 'bf16', '--out', out);
  expect(JSON.parse(stdout)).toMatchObject({ policy: 'dense', kv_reads_decode: 0, kv_reads_all: 6, peak_tokens: 3 });
  expect(readSafetensors(out).names).toEqual(['live_count', 'logits']);
});

test.each(['reference', 'cpu'])('under a baseline on %s it writes what is kept at the end', async (backend) => {
  const oracle = readSafetensors(fixture('online_baselines.safetensors'));
  const out = path.join(folder, `tova-${backend}.safetensors`);
  const { stdout } = await forward('--model', tinyModel('tiny_qwen3'), '--ids', idsOf('online_baselines.safetensors'), '--policy', 'tova',
    '--set', 'budget=32', '--prompt-len', '96', '--backend', backend, '--out', out);
  // Each of the 32 steps reads the budget and its own token; the prompt is dense.
  expect(JSON.parse(stdout)).toMatchObject({ policy: 'tova', kv_reads_decode: 32 * 33, kv_reads_all: (96 * 97) / 2 + 32 * 33, peak_tokens: 96 });
  const written = readSafetensors(out);
  expect(written.names).toEqual(['kept', 'live_count', 'logits']);
  // The oracle's mask of each head after the last of 33 rows.
  const last = Array.from({ length: 6 }, (_, head) => [...oracle.u8('tova_layer.kept').subarray((head * 33 + 32) * 128, (head * 33 + 33) * 128)]);
  expect([...written.u8('kept')]).toEqual(last.flat());
});

test('a kvpress scorer writes its scores too, however the prompt is cut', async () => {
  const oracle = readSafetensors(fixture('kvpress_prefill_scores.safetensors'));
  const out = path.join(folder, 'snapkv.safetensors');
  const ids = [...oracle.i32('prompt_ids')].join(',');
  await forward('--model', tinyModel('tiny_qwen3'), '--ids', ids, '--policy', 'kvpress_snapkv', '--set', 'window=16', '--chunk', '17', '--out', out);
  const written = readSafetensors(out);
  const expected = oracle.f32('snapkv.scores');
  expect(written.shape('scores')).toEqual([3, 2, 96]);
  expect(written.f32('scores').every((value, i) => Math.abs(value - expected[i]!) < 1e-4)).toBe(true);
  expect(written.u8('kept')).toEqual(oracle.u8('snapkv.kept'));
});

test.each(['reference', 'cpu'])('under KVzap on %s it writes every score, the decisions and what is kept', async (backend) => {
  const oracle = readSafetensors(fixture('kvzap_mlp_decode.safetensors'));
  const { tau } = JSON.parse(readFileSync(fixture('kvzap_mlp_decode.json'), 'utf8')) as { tau: number };
  const out = path.join(folder, `kvzap-${backend}.safetensors`);
  const { code, stdout, stderr } = await forward('--model', tinyModel('tiny_qwen3'), '--ids', idsOf('kvzap_mlp_decode.safetensors'), '--policy', 'kvzap',
    '--set', `surrogate=${tinyModel('kvzap_mlp')}`, '--set', `threshold=${tau}`, '--set', 'window=8', '--prompt-len', '96', '--backend', backend, '--out', out);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  expect(JSON.parse(stdout)).toMatchObject({ policy: 'kvzap', peak_tokens: 96 });
  const written = readSafetensors(out);
  expect(written.names).toEqual(['evict_decision', 'kept', 'live_count', 'logits', 'scores']);
  expect(written.shape('scores')).toEqual([3, 2, 128]);
  const expected = oracle.f32('scores');
  expect(written.f32('scores').every((value, i) => Math.abs(value - expected[i]!) < 1e-4)).toBe(true);
  // Entry t is about token t itself.
  expect([...written.u8('evict_decision')]).toEqual([...expected].map((score) => (score < tau ? 1 : 0)));
  const last = Array.from({ length: 6 }, (_, head) => [...oracle.u8('visible').subarray((head * 128 + 127) * 128, (head + 1) * 128 * 128)]);
  expect([...written.u8('kept')]).toEqual(last.flat());
});

test('a bundled model goes by its name', async () => {
  const { code, stdout } = await forward('--model', 'countdown@cr4', '--ids', '1,2,3', '--out', path.join(folder, 'named.safetensors'));
  expect(code).toBe(0);
  expect(JSON.parse(stdout)).toMatchObject({ policy: 'dms_borrowed' });
});

test.each([
  ['an id outside the vocabulary', ['--ids', '5,1000'], 'ERR_OPTION'],
  ['an id that is no number', ['--ids', '5,,7'], 'ERR_OPTION'],
  ['a prompt longer than the ids', ['--ids', '5', '--prompt-len', '2'], 'ERR_OPTION'],
  ['an unknown setting', ['--ids', '5', '--set', 'dms_magic=1'], 'ERR_OPTION'],
  ['a baseline without its budget', ['--ids', '5', '--policy', 'h2o'], 'ERR_OPTION'],
  ['KVzap without its surrogate', ['--ids', '5', '--policy', 'kvzap', '--set', 'threshold=0'], 'ERR_OPTION'],
  ['a surrogate that is a model', ['--ids', '5', '--policy', 'kvzap', '--set', 'threshold=0', '--set', `surrogate=${tinyModel('tiny_qwen3')}`], 'ERR_MODEL'],
  ['a setting given twice', ['--ids', '5', '--set', 'window=3', '--set', 'dms_window_size=3'], 'ERR_OPTION'],
  ['a baseline that is not supported', ['--ids', '5', '--policy', 'dmc'], 'ERR_OPTION'],
  ['no such model', ['--ids', '5', '--model', './nowhere'], 'ERR_MODEL'],
])('%s: exit code 1 and one line with the code', async (_, args, code) => {
  const ended = await forward('--model', tinyModel('tiny_qwen3_dms'), '--out', path.join(folder, 'none.safetensors'), ...args);
  expect(ended.code).toBe(1);
  expect(ended.stdout).toBe('');
  expect(ended.stderr).toMatch(new RegExp(`^forward: ${code}\\w*: .+\\n$`));
});

test('--help says what the options are', async () => {
  const { code, stdout } = await forward('--help');
  expect(code).toBe(0);
  for (const option of ['--model', '--ids', '--policy', '--set', '--prompt-len', '--chunk', '--backend', '--kv', '--out']) expect(stdout).toContain(option);
});

test.each([['no model', ['--ids', '1', '--out', 'x'], '--model'], ['no ids', ['--model', 'countdown', '--out', 'x'], '--ids'], ['an unknown option', ['--model', 'countdown', '--ids', '1', '--out', 'x', '--bogus'], '--bogus']])(
  '%s: one line and exit code 2', async (_, args, word) => {
    const { code, stdout, stderr } = await forward(...args);
    expect([code, stdout]).toEqual([2, '']);
    expect(stderr).toMatch(/^forward: ERR_OPTION: [^\n]+\n$/);
    expect(stderr).toContain(word);
  },
);
