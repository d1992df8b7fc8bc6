/** The program of a thread of prompt-threads.ts: keeps the tokenizers that it has loaded, does what it is asked, and refuses as `promptOf` does. */
import { parentPort } from 'node:worker_threads';

import { EngineError } from '../core/errors.ts';
import { type PromptModel, promptOf } from '../job/prompt.ts';
import { loadTokenizer } from '../model/gguf.ts';
import { ChatTemplate } from '../model/template.ts';
import type { PromptAnswer, PromptRequest } from './prompt-threads.ts';

/** Tokenizers of a hundred thousand tokens are large. */
const KEPT = 4;

/** By directory and digest; the one used last is last. */
const models = new Map<string, Pick<PromptModel, 'tokenizer' | 'template'>>();

async function modelOf({ directory, tokenizerDigest, template, toolTemplate }: PromptRequest): Promise<Pick<PromptModel, 'tokenizer' | 'template'>> {
  const key = JSON.stringify([directory, tokenizerDigest, template, toolTemplate]);
  const known = models.get(key);
  const model = known ?? { tokenizer: await loadTokenizer(directory), template: template === null ? null : new ChatTemplate(template, toolTemplate === null ? null : new ChatTemplate(toolTemplate)) };
  if (model.tokenizer.digest !== tokenizerDigest) {
    throw new EngineError('ERR_TOKENIZER', `The tokenizer in ${directory} was changed while the model is in use.`);
  }
  models.delete(key);
  models.set(key, model);
  for (const oldest of models.keys()) if (models.size > KEPT) models.delete(oldest);
  return model;
}

async function answerTo(request: PromptRequest): Promise<PromptAnswer> {
  try {
    const { ids, end, syntax, ignored } = promptOf(request.spec, { ...(await modelOf(request)), name: request.name, vocabSize: request.vocabSize, context: request.context });
    return { kind: 'prompt', ids: Int32Array.from(ids), end, syntax, ignored };
  } catch (error) {
    if (error instanceof EngineError) return { kind: 'refused', code: error.code, message: error.message };
    return { kind: 'refused', code: 'ERR_INTERNAL', message: error instanceof Error ? error.message : String(error) };
  }
}

parentPort?.on('message', (request: PromptRequest) => {
  void answerTo(request).then((answer) => parentPort?.postMessage(answer, answer.kind === 'prompt' ? [answer.ids.buffer as ArrayBuffer] : []));
});
