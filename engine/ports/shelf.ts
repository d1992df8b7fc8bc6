/** The models of a platform, as its control plane knows them: by what is written about them. Nothing here runs a job. */
import type { ModelView } from '../control/platform.ts';
import type { Quote } from '../job/budget.ts';
import type { DecodeJournals } from '../job/journals.ts';
import type { PreparedJob } from '../job/prepare.ts';
import type { JobSpec } from '../job/spec.ts';
import type { StoredSpec } from '../job/stored-spec.ts';
import type { CallOptions } from './object-store.ts';

export interface Shelf {
  /** @throws EngineError ERR_OPTION, ERR_MODEL_NOT_FOUND and the other faults of models, ERR_TEMPLATE, ERR_TOOLS, ERR_PROMPT_TOO_LONG, ERR_CANCELLED. */
  prepare(spec: JobSpec, options?: CallOptions): Promise<PreparedJob>;
  /** Of the model by value (model/identity.ts): a job goes on only where it is the same. */
  modelId(job: PreparedJob, options?: CallOptions): Promise<string>;
  /** The weights included. @throws EngineError ERR_BUDGET. */
  quote(job: PreparedJob): Quote;
  /** What an idle worker has for a job and its weights. */
  readonly freeBytes: number;
  /** Text and length of a stored job, as its model here reads it. @throws EngineError ERR_CHECKPOINT model: another than it began with. */
  restore(stored: StoredSpec, name: string, options?: CallOptions): Promise<PreparedJob>;
  /** What jobs may ask for. One that cannot be read is left out. */
  models(options?: CallOptions): Promise<readonly ModelView[]>;
  readonly decodeJournals: DecodeJournals;
}
