/** What a model directory says about texts: its tokenizer and its chat template. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';

import { EngineError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { readBounded } from './registry.ts';
import { ChatTemplate, templateSource } from './template.ts';
import type { ModelTexts } from './texts.ts';
import { Tokenizer } from './tokenizer.ts';

/** Of tokenizer.json and, if it is there, tokenizer_config.json. @throws EngineError ERR_TOKENIZER, ERR_MODEL_FILE */
export function tokenizerIn(directory: string): Tokenizer {
  const { tokenizer, tokenizerConfig } = textsIn(directory);
  return Tokenizer.parse(tokenizer, tokenizerConfig ?? '{}', join(directory, 'tokenizer.json'));
}

/** Of a directory with tokenizer.json. @throws EngineError ERR_TOKENIZER, ERR_MODEL_FILE */
export function textsIn(directory: string): ModelTexts {
  const read = (name: string, bytesMax: number) => {
    const path = join(directory, name);
    return existsSync(path) ? readBounded(path, bytesMax) : null;
  };
  const tokenizer = read('tokenizer.json', LIMITS.TOKENIZER_BYTES_MAX);
  if (tokenizer === null) throw new EngineError('ERR_TOKENIZER', `${directory} has no tokenizer.json.`);
  return {
    tokenizer,
    tokenizerConfig: read('tokenizer_config.json', LIMITS.JSON_BYTES_MAX),
    template: read('chat_template.jinja', LIMITS.TEMPLATE_BYTES_MAX),
    generationConfig: read('generation_config.json', LIMITS.JSON_BYTES_MAX),
  };
}

/** null: the model has none, and prompts are used as they are. The file wins over the config, as in transformers. @throws EngineError ERR_TEMPLATE */
export function templateIn(directory: string, tokenizerConfig: Readonly<Record<string, unknown>>): ChatTemplate | null {
  const path = join(directory, 'chat_template.jinja');
  const source = existsSync(path) ? readBounded(path, LIMITS.TEMPLATE_BYTES_MAX) : templateSource(tokenizerConfig.chat_template);
  return source === null ? null : new ChatTemplate(source);
}
