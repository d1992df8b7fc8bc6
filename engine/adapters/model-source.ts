/** From a reference to the source behind it: `hf:owner/name@revision`, `s3://bucket/prefix/name#revision`, `file:/srv/models/name`, a path. */
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { statOf, namesIn } from '../core/disk.ts';
import { EngineError } from '../core/errors.ts';
import { DirectorySource, StoreSource } from '../model/sources.ts';
import type { ModelSource } from '../ports/model-source.ts';
import type { ObjectStore } from '../ports/object-store.ts';
import { openStore } from './store-url.ts';

/** @throws EngineError ERR_MODEL_NOT_FOUND, ERR_STORE_CONFIG */
export async function openModelSource(reference: string): Promise<ModelSource> {
  if (reference.startsWith('hf:')) {
    // The hub's client is loaded only here: a local run does without its start-up time.
    const { HubSource } = await import('./hub.ts');
    return new HubSource(reference);
  }
  const local = localPath(reference);
  if (local !== null && (await isModelDirectory(local))) return new DirectorySource(local);
  const [address = '', revision] = reference.split('#');
  const { store, name } = await openModelStore(address);
  if (name === null) throw new EngineError('ERR_MODEL_NOT_FOUND', `${reference} names a store and no model in it.`);
  return new StoreSource(store, name, revision);
}

/** A store and the name of a model in it, its last component: `s3://models/countdown` is `countdown` of `s3://models`. */
export async function openModelStore(address: string): Promise<{ readonly store: ObjectStore; readonly name: string | null }> {
  const match = /^(.*?[^/:])\/+([^/]+)\/*$/.exec(address);
  if (match === null || (address.startsWith('s3:') && !/^s3:\/\/[^/]+\/[^/]/.test(address))) return { store: await openStore(address), name: null };
  return { store: await openStore(match[1] ?? ''), name: match[2] ?? null };
}

function localPath(reference: string): string | null {
  if (!/^[A-Za-z][A-Za-z0-9+.-]+:/.test(reference)) return path.resolve(reference);
  if (!reference.startsWith('file:/')) return null;
  try {
    return fileURLToPath(reference.replace(/#.*$/, ''));
  } catch (cause) {
    throw new EngineError('ERR_MODEL_NOT_FOUND', `${JSON.stringify(reference.slice(0, 80))} names another host or is badly encoded.`, { cause });
  }
}

/** A model lies there as files; in a store's folders objects have other names. */
async function isModelDirectory(directory: string): Promise<boolean> {
  if (directory.endsWith('.gguf')) return (await statOf(directory))?.isFile === true;
  for (const name of await namesIn(directory)) {
    if ((name === 'model.json' || name === 'config.json' || name.endsWith('.gguf')) && (await statOf(path.join(directory, name)))?.isFile === true) return true;
  }
  return false;
}
