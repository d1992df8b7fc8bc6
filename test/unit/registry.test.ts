import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { parseCard } from '../../engine/model/card.ts';
import { listModels, modelRoots, readBounded, resolve } from '../../engine/model/registry.ts';
import { COUNTDOWN } from './support.ts';

const roots = [join(COUNTDOWN, '..')];

describe('names', () => {
  test('a bare name is the best variant on the card', () => {
    expect(resolve('countdown')).toMatchObject({ name: 'countdown', variant: 'cr8', directory: join(COUNTDOWN, 'cr8'), variantCard: { compression_ratio: 8 } });
  });

  test('a variant by name or by compression ratio', () => {
    expect(resolve('countdown@dense').variant).toBe('dense');
    expect(resolve('countdown', { cr: 4 }).directory).toBe(join(COUNTDOWN, 'cr4'));
    expect(resolve('countdown', { cr: 1 }).variant).toBe('dense');
    expect(resolve('countdown@cr2', { cr: 2 }).variant).toBe('cr2');
  });

  test('a variant and another ratio contradict each other', () => {
    expect(() => resolve('countdown@cr2', { cr: 8 })).toThrow(expect.objectContaining({ code: 'ERR_OPTION' }));
  });

  test('what is unknown is refused with what there is', () => {
    expect(() => resolve('gpt')).toThrow(expect.objectContaining({ code: 'ERR_MODEL_NOT_FOUND', message: expect.stringContaining('countdown@cr8') }));
    expect(() => resolve('countdown@cr9')).toThrow(expect.objectContaining({ code: 'ERR_MODEL_NOT_FOUND', message: expect.stringContaining('cr8 (8)') }));
    expect(() => resolve('countdown', { cr: 3 })).toThrow(expect.objectContaining({ code: 'ERR_OPTION', message: expect.stringMatching(/^compression_ratio must be .*cr8 \(8\).*got 3\.$/) }));
    expect(() => resolve('countdown@constructor')).toThrow(expect.objectContaining({ code: 'ERR_MODEL_NOT_FOUND' }));
  });

  test('no name leaves the models directory', () => {
    for (const name of ['..', '../models/countdown', 'countdown/../../etc', '.hidden', 'a@../cr8', 'countdown@../cr8', 'countdown@cr8@cr4', '', 'a\0b', '@', 'countdown@']) {
      expect(() => resolve(name, { roots }), name).toThrow(expect.objectContaining({ code: 'ERR_MODEL_NOT_FOUND' }));
    }
  });

  test('the list has every model and variant that resolves', () => {
    const names = listModels(roots);
    expect(names).toEqual(['countdown', 'countdown@dense', 'countdown@cr2', 'countdown@cr4', 'countdown@cr8']);
    for (const name of names) expect(resolve(name, { roots }).card?.name).toBe('countdown');
  });

  test('RUMINATE_MODELS comes before the bundle', () => {
    expect(modelRoots({ RUMINATE_MODELS: '/a:/b' })).toEqual(['/a', '/b', join(COUNTDOWN, '..')]);
  });
});

describe('paths', () => {
  let root: string;
  beforeAll(() => {
    root = mkdtempSync(join(tmpdir(), 'registry-'));
    mkdirSync(join(root, 'plain'));
    writeFileSync(join(root, 'plain', 'config.json'), '{}');
    mkdirSync(join(root, 'empty'));
    mkdirSync(join(root, 'broken'));
    writeFileSync(join(root, 'broken', 'model.json'), '{"variants":{}}');
  });
  afterAll(() => rmSync(root, { recursive: true }));

  test('a plain Hugging Face directory is a model without variants', () => {
    expect(resolve(join(root, 'plain'))).toEqual({ name: join(root, 'plain'), directory: join(root, 'plain'), variant: null, card: null, variantCard: null });
    expect(resolve('plain', { roots: [root] }).directory).toBe(join(root, 'plain'));
    expect(() => resolve(`${join(root, 'plain')}@cr8`)).toThrow(expect.objectContaining({ code: 'ERR_MODEL_NOT_FOUND' }));
  });

  test('a directory with a card has its variants, by @ or by ratio', () => {
    expect(resolve(COUNTDOWN).variant).toBe('cr8');
    expect(resolve(`${COUNTDOWN}@cr4`).directory).toBe(join(COUNTDOWN, 'cr4'));
    expect(resolve(COUNTDOWN, { cr: 2 }).variant).toBe('cr2');
    expect(resolve(join(COUNTDOWN, 'cr4')).variant).toBeNull();
  });

  test('a GGUF file is a model, and so is a directory that holds one', () => {
    const held = mkdtempSync(join(tmpdir(), 'gguf-'));
    try {
      const file = join(held, 'a.gguf');
      writeFileSync(file, '');
      expect(resolve(file)).toMatchObject({ name: file, directory: file, variant: null, card: null });
      expect(resolve(held).directory).toBe(held);
      expect(() => resolve(join(held, 'b.gguf'))).toThrow(expect.objectContaining({ code: 'ERR_MODEL_NOT_FOUND' }));
      expect(() => resolve('b.gguf')).toThrow(expect.objectContaining({ code: 'ERR_MODEL_NOT_FOUND', message: expect.stringContaining('GGUF file') }));
    } finally {
      rmSync(held, { recursive: true });
    }
  });

  test('a directory without a model is refused', () => {
    expect(() => resolve(join(root, 'empty'))).toThrow(expect.objectContaining({ code: 'ERR_MODEL_NOT_FOUND', message: expect.stringContaining('config.json') }));
    expect(() => resolve(join(root, 'absent'))).toThrow(expect.objectContaining({ code: 'ERR_MODEL_NOT_FOUND' }));
  });

  test('a file is read whole up to its bound, and no byte further whatever its size says', () => {
    const file = join(root, 'text');
    const text = 'é'.repeat(1_500_000);
    writeFileSync(file, text);
    expect(readBounded(file, 3_000_000)).toBe(text);
    expect(() => readBounded(file, 2_999_999)).toThrow(expect.objectContaining({ code: 'ERR_MODEL_FILE', message: expect.stringContaining('larger than 2999999 bytes; got 3000000') }));
    expect(() => readBounded(join(root, 'absent'), 9)).toThrow(expect.objectContaining({ code: 'ERR_MODEL_FILE' }));
  });

  test.skipIf(process.platform !== 'linux')('files of /proc say 0 bytes and have more', () => {
    expect(readBounded('/proc/self/status', 1 << 20)).toContain('Pid:');
    expect(() => readBounded('/proc/self/status', 10)).toThrow(expect.objectContaining({ code: 'ERR_MODEL_FILE', message: expect.stringContaining('larger than 10 bytes') }));
  });

  test.skipIf(process.platform === 'win32')('a directory, a device and a pipe without a writer are refused at once', () => {
    const pipe = join(root, 'pipe');
    expect(spawnSync('mkfifo', [pipe]).status).toBe(0);
    const card = join(root, 'endless');
    mkdirSync(card);
    symlinkSync('/dev/zero', join(card, 'model.json'));
    const refused = expect.objectContaining({ code: 'ERR_MODEL_FILE', message: expect.stringContaining('is not a regular file') });
    for (const path of [root, '/dev/zero', pipe]) expect(() => readBounded(path, 1 << 20), path).toThrow(refused);
    expect(() => resolve(card)).toThrow(refused);
  });

  test('a broken card is named', () => {
    expect(() => resolve(join(root, 'broken'))).toThrow(expect.objectContaining({ code: 'ERR_MODEL_CONFIG' }));
  });
});

describe('model.json', () => {
  const path = fileURLToPath(new URL('../../models/countdown/model.json', import.meta.url));
  const text = readFileSync(path, 'utf8');
  const card = parseCard(text, path);

  test('every digest and size is that of the file', () => {
    for (const variant of Object.values(card.variants)) {
      for (const file of variant.files) {
        const bytes = readFileSync(join(COUNTDOWN, variant.directory, file.path));
        expect({ bytes: bytes.length, sha256: createHash('sha256').update(bytes).digest('hex') }, file.path).toEqual({ bytes: file.bytes, sha256: file.sha256 });
      }
    }
  });

  test('holds the measured figures: kept fraction, solve rates, the frontier of the demo', () => {
    const { kept_fraction, tasks, frontier } = card.variants.cr8?.figures ?? {};
    expect(kept_fraction).toBeCloseTo(1 / 6.91, 3);
    expect(tasks?.countdown4).toMatchObject({ solve_rate: 0.464, kv_reads: 35_738, achieved_cr: 6.91 });
    expect(frontier?.find((point) => point.length === 512 && point.width === 8)).toMatchObject({ score: 0.896, kv_reads: 116_700 });
    expect(card.variants.dense?.figures?.frontier.find((point) => point.length === 128 && point.width === 8)).toMatchObject({ score: 0.625, kv_reads: 58_100 });
  });

  test('a card with any field missing, misplaced or absurd is refused, never half read', () => {
    const mutate = (change: (json: Record<string, never>) => void) => {
      const json = JSON.parse(text) as Record<string, never>;
      change(json);
      return JSON.stringify(json);
    };
    const broken = [
      ...Object.keys(card).map((key) => mutate((json) => delete json[key])),
      mutate((json) => Object.assign(json, { extra: 1 })),
      mutate((json) => Object.assign(json, { default_variant: 'cr9' })),
      mutate((json) => Object.assign(json, { tokenizer_sha256: 'x' })),
      mutate((json) => Object.assign((json.variants as unknown as Record<string, object>).cr8 ?? {}, { directory: '../dense' })),
      mutate((json) => Object.assign((json.variants as unknown as Record<string, object>).cr8 ?? {}, { directory: '/etc' })),
      text.slice(0, -10), '', 'null', '[]',
    ];
    for (const json of broken) expect(() => parseCard(json, 'x')).toThrow(expect.objectContaining({ code: 'ERR_MODEL_CONFIG' }));
  });
});
