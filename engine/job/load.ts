/** What is read of a model on this machine before its weights. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';

import { LIMITS } from '../core/limits.ts';
import { templateIn } from '../model/directory.ts';
import { loadTokenizer } from '../model/gguf.ts';
import { type ResolvedModel, readBounded } from '../model/registry.ts';
import { inspectModel } from '../runtime/native.ts';
import type { LoadedModel } from './prepare.ts';
import { parseGenerationConfig } from './spec.ts';

/** @throws EngineError ERR_MODEL_FILE, ERR_MODEL_CONFIG and the other faults of models, ERR_TOKENIZER, ERR_TEMPLATE */
export async function loadModel(resolved: ResolvedModel, overrides: LoadedModel['overrides']): Promise<LoadedModel> {
  const { directory } = resolved;
  const info = await inspectModel(directory, overrides);
  const tokenizer = await loadTokenizer(directory);
  tokenizer.checkFits(info.vocabSize);
  const path = join(directory, 'generation_config.json');
  const samplingDefaults = existsSync(path) ? parseGenerationConfig(readBounded(path, LIMITS.JSON_BYTES_MAX), path) : {};
  return { resolved, overrides, info, tokenizer, template: templateIn(directory, tokenizer.config), samplingDefaults };
}
