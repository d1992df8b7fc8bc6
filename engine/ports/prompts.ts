/** From what was asked to the tokens that a model is fed: a template and a tokenizer at work, seconds of it for megabytes of text. */
import type { LoadedModel } from '../job/prepare.ts';
import type { Prompt } from '../job/prompt.ts';
import type { JobSpec } from '../job/spec.ts';
import type { CallOptions } from './object-store.ts';

export interface Prompts {
  /** As `promptOf`, which it is a place for. @throws EngineError as promptOf; ERR_OVERLOADED; ERR_CANCELLED. */
  encode(spec: JobSpec, model: LoadedModel, options?: CallOptions): Promise<Prompt>;
}
