/** Models as they are read before their weights, once for all who use them: a large tokenizer takes seconds and hundreds of megabytes. */
import { loadModel } from './load.ts';
import type { LoadedModel } from './prepare.ts';

export class LoadedModels {
  readonly #models = new Map<string, Promise<LoadedModel>>();

  /** @throws EngineError as loadModel. */
  async get(resolved: LoadedModel['resolved'], overrides: LoadedModel['overrides']): Promise<LoadedModel> {
    const key = JSON.stringify([resolved.directory, overrides]);
    const loading = this.#models.get(key) ?? loadModel(resolved, overrides);
    this.#models.set(key, loading);
    // What failed may succeed when it is asked again.
    loading.catch(() => this.#models.delete(key));
    // The same directory may be asked for by another name: with a card or without.
    return { ...(await loading), resolved };
  }

  clear(): void {
    this.#models.clear();
  }
}
