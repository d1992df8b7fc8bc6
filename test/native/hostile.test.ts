/**
 * Model directories that lie, through openEngine: a stable code, no crash, nothing left behind. The loader's own tests
 * (native/test/model_*_test.cc) go through every field; these are the ones a user meets.
 */
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import type { ErrorCode } from '../../engine/core/errors.ts';
import { inspectModel } from '../../engine/runtime/native.ts';
import { expectCode, open, tinyModel } from '../helpers/engine.ts';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'ruminate-models-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

type Json = Record<string, unknown>;
const weights = (directory: string) => path.join(directory, 'model.safetensors');

function editConfig(directory: string, changes: Json): void {
  const file = path.join(directory, 'config.json');
  writeFileSync(file, JSON.stringify({ ...(JSON.parse(readFileSync(file, 'utf8')) as Json), ...changes }));
}

function editBytes(file: string, edit: (bytes: Buffer) => Buffer): void {
  writeFileSync(file, edit(readFileSync(file)));
}

function editHeader(directory: string, edit: (header: Record<string, { dtype: string; shape: number[]; data_offsets: number[] }>) => void): void {
  editBytes(weights(directory), (bytes) => {
    const size = Number(bytes.readBigUInt64LE(0));
    const header = JSON.parse(bytes.toString('utf8', 8, 8 + size));
    edit(header);
    const text = Buffer.from(JSON.stringify(header));
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(text.length));
    return Buffer.concat([length, text, bytes.subarray(8 + size)]);
  });
}

const CASES: readonly { readonly name: string; readonly code: ErrorCode; readonly spoil: (directory: string) => void }[] = [
  { name: 'no config.json', code: 'ERR_MODEL_FILE', spoil: (d) => rmSync(path.join(d, 'config.json')) },
  { name: 'config.json that is not JSON', code: 'ERR_MODEL_CONFIG', spoil: (d) => writeFileSync(path.join(d, 'config.json'), '{"model_type": ') },
  { name: 'config.json nested ten thousand deep', code: 'ERR_MODEL_CONFIG', spoil: (d) => writeFileSync(path.join(d, 'config.json'), '['.repeat(10_000)) },
  { name: 'an unknown architecture', code: 'ERR_MODEL_CONFIG', spoil: (d) => editConfig(d, { model_type: 'quokka', architectures: ['QuokkaForCausalLM'] }) },
  { name: 'a billion layers', code: 'ERR_MODEL_CONFIG', spoil: (d) => editConfig(d, { num_hidden_layers: 1e9 }) },
  { name: 'a negative head count', code: 'ERR_MODEL_CONFIG', spoil: (d) => editConfig(d, { num_key_value_heads: -2 }) },
  { name: 'heads that KV heads do not divide', code: 'ERR_MODEL_CONFIG', spoil: (d) => editConfig(d, { num_attention_heads: 5, num_key_value_heads: 2 }) },
  { name: 'a negative DMS window', code: 'ERR_MODEL_CONFIG', spoil: (d) => editConfig(d, { dms_window_size: -1 }) },
  { name: 'no weights', code: 'ERR_MODEL_FILE', spoil: (d) => rmSync(weights(d)) },
  { name: 'a directory in place of the weights', code: 'ERR_MODEL_FILE', spoil: (d) => { rmSync(weights(d)); mkdirSync(weights(d)); } },
  { name: 'empty weights', code: 'ERR_MODEL_FILE', spoil: (d) => truncateSync(weights(d), 0) },
  { name: 'weights cut short', code: 'ERR_MODEL_FILE', spoil: (d) => editBytes(weights(d), (bytes) => bytes.subarray(0, bytes.length - 100)) },
  { name: 'a header length of 2^63', code: 'ERR_MODEL_FILE', spoil: (d) => editBytes(weights(d), (bytes) => { bytes.writeBigUInt64LE(1n << 63n); return bytes; }) },
  { name: 'overlapping tensors', code: 'ERR_MODEL_FILE', spoil: (d) => editHeader(d, (header) => {
    header['model.layers.0.self_attn.q_proj.weight']!.data_offsets = header['model.layers.1.self_attn.q_proj.weight']!.data_offsets;
  }) },
  { name: 'a missing tensor', code: 'ERR_MODEL_TENSOR', spoil: (d) => editHeader(d, (header) => {
    header['unrelated'] = header['model.layers.1.mlp.up_proj.weight']!;
    delete header['model.layers.1.mlp.up_proj.weight'];
  }) },
  { name: 'a tensor of the wrong shape', code: 'ERR_MODEL_TENSOR', spoil: (d) => editHeader(d, (header) => { header['lm_head.weight']!.shape.reverse().push(1); }) },
  { name: 'a NaN weight', code: 'ERR_MODEL_WEIGHTS', spoil: (d) => editBytes(weights(d), (bytes) => { bytes.writeFloatLE(NaN, bytes.length - 4); return bytes; }) },
  { name: 'an index that names a file outside the directory', code: 'ERR_MODEL_FILE', spoil: (d) => {
    cpSync(weights(d), path.join(d, '..', 'outside.safetensors'));
    rmSync(weights(d));
    writeFileSync(path.join(d, 'model.safetensors.index.json'), JSON.stringify({ weight_map: { 'lm_head.weight': '../outside.safetensors' } }));
  } },
];

describe('a model directory with', () => {
  test.each(CASES)('$name is $code', async ({ name, code, spoil }) => {
    const directory = path.join(folder, name.replace(/\W+/g, '_'));
    cpSync(tinyModel('tiny_qwen3_dms'), directory, { recursive: true });
    spoil(directory);
    const error = await expectCode(code, () => open(directory));
    expect(error.message).not.toContain('\n');
    await expectCode(code, () => inspectModel(directory, []));
  });
});

test('no directory at all is ERR_MODEL_FILE, whatever the path', async () => {
  for (const directory of [path.join(folder, 'nothing'), '/dev/null', path.join(folder, 'x'.repeat(3000)), '.']) {
    await expectCode('ERR_MODEL_FILE', () => open(directory));
  }
});

test('an override of an unknown key or with a wrong value is ERR_OPTION', async () => {
  for (const overrides of [[['windw', '3']], [['window', 'three']], [['window', '-1']], [['alpha_per', 'token']], [['policy', 'h2o']]] as const) {
    await expectCode('ERR_OPTION', () => open(tinyModel('tiny_qwen3_dms'), { overrides }));
  }
});
