/** Why a checkpoint cannot be used: one word that programs read, then a sentence for people. */
import { EngineError } from '../core/errors.ts';

/**
 * damaged: the bytes are not what was written; truncated: fewer of them; layout, model, numerics: of another one; numerics_drift:
 * recomputed decisions differ from the journal's; format: a newer or unknown version, kind, flag or codec; missing: the store has no
 * such object; identity: of another tenant, job or key. The set is closed, here and in native/checkpoint.
 */
export type Reason = 'damaged' | 'truncated' | 'layout' | 'model' | 'numerics' | 'numerics_drift' | 'format' | 'missing' | 'identity';

/** Is this the error of what is there no more as it was written, and so never will be? By shape: a bundle may hold the class twice. */
export function isUnreadable(error: unknown): boolean {
  return error instanceof Error && (error as Partial<EngineError>).code === 'ERR_CHECKPOINT' && /^(damaged|truncated|missing):/.test(error.message);
}

export function checkpointError(reason: Reason, sentence: string, cause?: unknown): EngineError {
  return new EngineError('ERR_CHECKPOINT', `${reason}: ${sentence}`, cause === undefined ? {} : { cause });
}
