/** Where the commands that run a model look for it: this machine, and with the adapters whatever can be fetched. */
import { openModelSource } from '../engine/adapters/model-source.ts';
import { ModelCache } from '../engine/model/cache.ts';
import { CachingFinder } from '../engine/model/finder.ts';
import type { ModelFinder } from '../engine/ports/models.ts';

export function modelFinder(): ModelFinder {
  return new CachingFinder({ cache: new ModelCache(), open: openModelSource, store: process.env.RUMINATE_MODELS_STORE });
}
