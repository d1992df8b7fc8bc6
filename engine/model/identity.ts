/** Which model it is, by value: a job goes on only where every part that can change a token is the same (DESIGN.md 3). */
import { sha256 } from '@noble/hashes/sha2.js';
import { hexOf, utf8Of } from '../core/bytes.ts';
import type { ModelInfo } from '../runtime/native.ts';
import type { ChatTemplate } from './template.ts';
import type { Tokenizer } from './tokenizer.ts';

/** What a model is made of beside its weights. */
export interface ModelParts {
  readonly info: ModelInfo;
  /** Over the directory's policy: what decides about eviction is part of the model. */
  readonly overrides: readonly (readonly [string, string])[];
  readonly tokenizer: Tokenizer;
  readonly template: ChatTemplate | null;
}

/**
 * SHA-256 in hex over the parts that KV.md 3 names. Where the files lie, how they are cut into shards and what they are called is no part of it.
 * @param weightsDigest of every tensor by name, type, shape and bytes, and of the numbers that are used with them, as the engine computes it.
 */
export function modelIdOf({ info, overrides, tokenizer, template }: ModelParts, weightsDigest: string): string {
  const { fileBytes: _, policy, ...config } = info;
  const { reason: _reason, targetCr: _targetCr, kvzap, ...parameters } = policy;
  // A surrogate's weights are among the tensors; where its directory lies is nobody's business.
  const surrogate = kvzap === null ? null : { kind: kvzap.kind, threshold: kvzap.threshold, decode: kvzap.decode };
  const parts = {
    weights: weightsDigest,
    config,
    policy: { ...parameters, kvzap: surrogate },
    overrides: overrides.filter(([key]) => key !== 'surrogate'),
    tokenizer: tokenizer.digest,
    template: template?.source ?? null,
  };
  return hexOf(sha256(utf8Of(JSON.stringify(parts))));
}
