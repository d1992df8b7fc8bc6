/**
 * From what a job calls its model to a directory that stays where it is: names (RUMINATE_MODELS, the bundle, the cache, then
 * RUMINATE_MODELS_STORE), paths, and references to what is elsewhere: `s3://models/countdown@cr8#2025-11`, `file:/srv/models/countdown`,
 * `hf:owner/name@revision`. What is elsewhere is pulled into the cache: the chosen variant of it.
 */
import { basename, dirname, sep } from 'node:path';
import { EngineError } from '../core/errors.ts';
import type { FindOptions, FoundModel, ModelFinder } from '../ports/models.ts';
import type { ModelSource } from '../ports/model-source.ts';
import { NAME_PATTERN, chooseVariant } from './card.ts';
import { type ModelCache, cached } from './cache.ts';
import { pull } from './pull.ts';
import { type ResolvedModel, choose, resolve } from './registry.ts';

export interface Reference {
  /** What a source is opened from. */
  readonly url: string;
  readonly variant: string | undefined;
}

/** Opens `s3:`, `file:` and `hf:`, and whatever else adapters know. */
export type OpenSource = (url: string) => Promise<ModelSource>;

export interface CachingFinderOptions {
  readonly cache: ModelCache;
  readonly open: OpenSource;
  /** RUMINATE_MODELS_STORE. */
  readonly store?: string | undefined;
}

/** null: a name or a path of this machine. */
export function referenceOf(model: string): Reference | null {
  if (model.startsWith('hf:')) return { url: model, variant: undefined };
  if (!/^(s3|file|memory):/.test(model)) return null;
  const [, url = model, variant, revision] = /^(.*?)(?:@([A-Za-z0-9][\w.-]*))?(?:#([A-Za-z0-9][\w.-]*))?$/.exec(model) ?? [];
  return { url: revision === undefined ? url : `${url}#${revision}`, variant };
}

const UNPINNED = { timing: null, [Symbol.asyncDispose]: async () => {} };

/** Names and paths only. */
export const localModels: ModelFinder = { find: async (model, { cr }) => ({ resolved: resolve(model, { cr }), ...UNPINNED }) };

export class CachingFinder implements ModelFinder {
  readonly #options: CachingFinderOptions;

  constructor(options: CachingFinderOptions) {
    this.#options = options;
  }

  async find(model: string, options: FindOptions): Promise<FoundModel> {
    const reference = referenceOf(model);
    if (reference !== null) return await this.#fetch(model, reference, options);
    let resolved: ResolvedModel;
    try {
      resolved = resolve(model, { cr: options.cr });
    } catch (error) {
      const elsewhere = this.#inStore(model, error);
      return await this.#fetch(model, elsewhere, options);
    }
    return await this.#held(resolved, options);
  }

  /** A bare name that is not here, where a store is configured. */
  #inStore(model: string, error: unknown): Reference {
    const [name = '', variant] = model.split('@');
    const unknown = error instanceof EngineError && error.code === 'ERR_MODEL_NOT_FOUND' && NAME_PATTERN.test(name);
    if (!unknown || !this.#options.store) throw error;
    return { url: `${this.#options.store.replace(/\/$/, '')}/${name}`, variant };
  }

  /** A model of the cache is pinned, and fetched again where a part of it is gone. */
  async #held(resolved: ResolvedModel, options: FindOptions): Promise<FoundModel> {
    const { cache } = this.#options;
    const { variant } = resolved;
    const folder = dirname(resolved.directory);
    if (variant === null || dirname(folder) !== cache.namesFolder) return { resolved, ...UNPINNED };
    const found = (await cache.list()).find(({ names }) => names.includes(basename(folder)));
    if (found === undefined) return { resolved, ...UNPINNED };
    const pin = await cache.pins.pin({ snapshots: [found.digest], blobs: [] }, options.signal);
    if ((await cached(cache, found.digest, variant)) !== null) {
      await cache.touch(found.digest);
      const directory = `${found.directory}${sep}${basename(resolved.directory)}`;
      return { resolved: { ...resolved, directory }, timing: null, [Symbol.asyncDispose]: () => pin[Symbol.asyncDispose]() };
    }
    await pin[Symbol.asyncDispose]();
    if (found.origin === null) {
      throw new EngineError('ERR_MODEL_FILE', `${resolved.name}@${variant} is not whole, and where it came from is not known; pull it again.`);
    }
    return await this.#fetch(resolved.name, { url: found.origin.url, variant }, options);
  }

  async #fetch(name: string, { url, variant }: Reference, options: FindOptions): Promise<FoundModel> {
    const { cache, open } = this.#options;
    const source = await open(url);
    const chosen = { variant: undefined as string | undefined };
    const { directory, digest, card, timing, pin } = await pull(cache, source, {
      signal: options.signal,
      onProgress: options.onProgress,
      variants: (published) => [(chosen.variant = chooseVariant(name, published, variant, options.cr))],
    });
    try {
      await cache.touch(digest);
      const resolved = choose(name, directory, chosen.variant ?? chooseVariant(name, card, variant, options.cr), options.cr);
      return { resolved, timing, [Symbol.asyncDispose]: () => pin[Symbol.asyncDispose]() };
    } catch (error) {
      await pin[Symbol.asyncDispose]();
      throw error;
    }
  }
}
