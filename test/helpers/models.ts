/** Model caches, sources and stores of their own, without vitest: child processes use them too. */
import { cpSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { createHash } from 'node:crypto';

import { ModelCache } from '../../engine/model/cache.ts';
import { type PullOptions, type PullResult, pull } from '../../engine/model/pull.ts';
import type { ModelSource } from '../../engine/ports/model-source.ts';
import { ROOT } from './setup.ts';

export const COUNTDOWN = path.join(ROOT, 'models', 'countdown');

export const sha256 = (content: Uint8Array): string => createHash('sha256').update(content).digest('hex');

/** Removed by `removeFolders`. */
const folders: string[] = [];
export function folder(): string {
  const made = mkdtempSync(path.join(tmpdir(), 'ruminate-models-'));
  folders.push(made);
  return made;
}
export function removeFolders(): void {
  for (const made of folders.splice(0)) rmSync(made, { recursive: true, force: true });
}

export function cacheIn(root: string, bytesMax = 2 ** 40): ModelCache {
  return new ModelCache(path.join(root, 'ruminate'), bytesMax);
}

/** Every file below, links followed, by relative path. */
export function contentOf(directory: string): Map<string, Buffer> {
  const found = new Map<string, Buffer>();
  for (const name of readdirSync(directory).sort()) {
    const file = path.join(directory, name);
    if (statSync(file).isDirectory()) for (const [inner, content] of contentOf(file)) found.set(`${name}/${inner}`, content);
    else found.set(name, readFileSync(file));
  }
  return found;
}

/** Blobs whose content is not what their name says: there must be none, whatever happened. */
export function wrongBlobs(cache: ModelCache): string[] {
  let blobs: Map<string, Buffer>;
  try {
    blobs = contentOf(path.join(cache.root, 'blobs', 'sha256'));
  } catch {
    return [];
  }
  return [...blobs].filter(([name, content]) => path.basename(name) !== sha256(content)).map(([name]) => name);
}

/** As `pull`, and the model may be evicted again. */
export async function pullOnce(cache: ModelCache, source: ModelSource, options: PullOptions = {}): Promise<PullResult> {
  const { pin, ...result } = await pull(cache, source, options);
  await pin[Symbol.asyncDispose]();
  return result;
}

/** A directory with a card and one variant, whose files are random: for caches, which look at no content. */
export function madeModel(name: string, files: Readonly<Record<string, Buffer>>): string {
  const directory = path.join(folder(), name);
  mkdirSync(path.join(directory, 'only'), { recursive: true });
  for (const [file, content] of Object.entries(files)) writeFileSync(path.join(directory, 'only', file), content);
  writeFileSync(path.join(directory, 'model.json'), JSON.stringify({
    format: 1,
    name,
    description: '',
    source: 'made by a test',
    licence: null,
    tokenizer_sha256: null,
    template_sha256: null,
    default_variant: 'only',
    task: null,
    variants: {
      only: {
        compression_ratio: 1,
        directory: 'only',
        policy: { name: 'dense', window: 0, alpha_scale: 0, alpha_offset: 0 },
        files: Object.entries(files).map(([file, content]) => ({ path: file, bytes: content.length, sha256: sha256(content) })),
      },
    },
  }));
  return directory;
}

export function copyOf(directory: string): string {
  const copy = path.join(folder(), path.basename(directory));
  cpSync(directory, copy, { recursive: true });
  return copy;
}
