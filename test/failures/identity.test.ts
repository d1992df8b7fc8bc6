/** KV.md 7, identity: bytes of another model, layout or format are never taken for this one's; of other numerics they are labelled. */
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeAll, describe, expect, test } from 'vitest';

import type { MemoryStore } from '../../engine/adapters/memory.ts';
import { sha256 } from '../../engine/kv/canonical.ts';
import { readJob } from '../../engine/kv/create.ts';
import { formatHead } from '../../engine/kv/head.ts';
import type { Manifest } from '../../engine/kv/manifest.ts';
import { manifestName } from '../../engine/kv/names.ts';
import { COUNTDOWN } from '../helpers/models.ts';
import { contents, copyOf, errorOf, expectUndisturbed, HEAD_KEY, parked, refused, resume, WHERE } from './support.ts';

let store: MemoryStore;
beforeAll(async () => { store = await parked(); });

const folders: string[] = [];
afterEach(() => { for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true }); });

/** The bundled model under a path of its own, with one file of the variant changed. */
function model(file?: string, change: (content: Buffer) => Buffer | string = (content) => content): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'ruminate-identity-'));
  folders.push(folder);
  const copy = path.join(folder, 'countdown');
  cpSync(COUNTDOWN, copy, { recursive: true });
  if (file !== undefined) {
    const changed = path.join(copy, 'cr8', file);
    const before = readFileSync(changed);
    const after = Buffer.from(change(Buffer.from(before)));
    expect(after.equals(before)).toBe(false);
    writeFileSync(changed, after);
  }
  return copy;
}

const edited = (edit: (json: Record<string, unknown>) => void) => (content: Buffer): string => {
  const json = JSON.parse(content.toString()) as Record<string, unknown>;
  edit(json);
  return JSON.stringify(json, null, 2);
};

test('the same model under another path goes on', async () => {
  await expectUndisturbed(await resume({ store: await copyOf(store), model: model() }));
});

describe('a model of the same name and place is refused, and the job left as it is, when', () => {
  test.each<[string, string, (content: Buffer) => Buffer | string]>([
    ['one bit of one weight differs', 'model.safetensors', (content) => { content[content.length - 2] = (content.at(-2) ?? 0) ^ 1; return content; }],
    ['its tokenizer has another word', 'tokenizer.json', (content) => content.toString().replace('"goal": 11', '"aim": 11').replace('"goal":11', '"aim":11')],
    ['its chat template has another blank', 'tokenizer_config.json', (content) => content.toString().replace('<think>{% endif %}', '<think> {% endif %}')],
    ['its window is another', 'config.json', edited((json) => { json.dms_window_size = 32; })],
    ['it evicts by another offset', 'config.json', edited((json) => { json.dms_initial_alpha_offset = 4; })],
    ['its rotary base is another', 'config.json', edited((json) => { json.rope_theta = 20_000; })],
    ['its positions are scaled', 'config.json', edited((json) => { json.rope_scaling = { rope_type: 'linear', factor: 2 }; })],
    ['its norm has another epsilon', 'config.json', edited((json) => { json.rms_norm_eps = 1e-5; })],
  ])('%s', async (_, file, change) => {
    const changed = await copyOf(store);
    const before = contents(changed);
    expect(await errorOf(resume({ store: changed, model: model(file, change) }))).toMatchObject(refused('model'));
    expect(contents(changed)).toEqual(before);
  });
});

/** The parked job with another manifest under its head, every digest right. */
async function withManifest(change: (manifest: Manifest) => unknown): Promise<MemoryStore> {
  const { head, manifest } = await readJob(store, WHERE);
  if (manifest === null) throw new Error('no manifest');
  const text = JSON.stringify(change(manifest));
  const name = manifestName(manifest.version, sha256(text));
  const changed = await copyOf(store);
  await changed.put(`kv/acme/sums/${name}`, [Buffer.from(text)]);
  await changed.put(HEAD_KEY, [Buffer.from(formatHead({ ...head, manifest: { name, bytes: Buffer.byteLength(text), digest: sha256(text) } }))]);
  return changed;
}

test('a checkpoint of another cache layout or model is refused by its ids alone', async () => {
  await expect(resume({ store: await withManifest((manifest) => ({ ...manifest, layoutId: 'f'.repeat(32) })) })).rejects.toMatchObject(refused('layout'));
  await expect(resume({ store: await withManifest((manifest) => ({ ...manifest, modelId: 'f'.repeat(64) })) })).rejects.toMatchObject(refused('model'));
});

test('a checkpoint that another engine or processor computed goes on, and says that it was replayed', async () => {
  const other = await withManifest((manifest) => ({ ...manifest, numericsId: 'another-processor' }));
  const { resumed } = await expectUndisturbed(await resume({ store: other }));
  expect(resumed).toMatchObject([{ outcome: 'replayed', reason: expect.stringContaining('numerics') as string }]);
  expect(resumed[0]?.tokens_recomputed).toBeGreaterThan(0);
});

test('a head or manifest of a newer format is refused as such, and not touched', async () => {
  const newer = await copyOf(store);
  await newer.put(HEAD_KEY, [Buffer.from('{"format":"dmskv/3","chains":{"of":"another shape"}}')]);
  for (const changed of [newer, await withManifest((manifest) => ({ ...manifest, format: 'dmskv/3' }))]) {
    const before = contents(changed);
    expect(await errorOf(resume({ store: changed }))).toMatchObject(refused('format'));
    expect(contents(changed)).toEqual(before);
  }
});
