/** Short ways to engines and runs, without vitest: worker threads and child processes use them too. */
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { openEngine, type EngineOptions, type ForwardResult, type NativeEngine, type RunOptions, type Sampling } from '../../engine/runtime/native.ts';

export const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..', '..');
export const fixture = (name: string): string => path.join(ROOT, 'test', 'fixtures', name);
export const tinyModel = (name: string): string => fixture(path.join('models', name));
export const bundledModel = (variant: string): string => path.join(ROOT, 'models', 'countdown', variant);

export const GREEDY: Sampling = {
  temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, presencePenalty: 0, frequencyPenalty: 0, logitBias: [],
};

export function engineOptions(directory: string, changes: Partial<EngineOptions> = {}): EngineOptions {
  return { directory, overrides: [], backend: 'cpu', kv: null, pageSlots: 64, threads: 1, isa: null, ...changes };
}

export function open(directory: string, changes: Partial<EngineOptions> = {}): Promise<NativeEngine> {
  return openEngine(engineOptions(directory, changes));
}

/** Four sampled chains over a prompt of 16 ids, with no EOS: always as long as `length`. */
export function runOptions(changes: Partial<RunOptions> & { readonly length?: number } = {}): RunOptions {
  const { length = 32, ...rest } = changes;
  const width = rest.width ?? 4;
  return {
    prompt: Int32Array.from({ length: 16 }, (_, i) => (7 * i + 3) % 100),
    width,
    lengths: new Int32Array(width).fill(length),
    seed: 42n,
    firstChain: 0,
    jobWidth: 0,
    sampling: { ...GREEDY, temperature: 1 },
    eosIds: new Int32Array(0),
    stop: [],
    pieces: null,
    kvReadBudget: null,
    memoryLimitBytes: null,
    prefillChunk: 128,
    logprobs: null,
    checkpointed: false,
    ...rest,
  };
}

/** Everything of a pass that the law of bits speaks of, as one buffer: logits, then positions, K and V of every head. */
export function bitsOf(result: ForwardResult): Buffer {
  const parts: ArrayBufferView[] = [result.logits];
  for (const heads of result.heads) for (const { positions, k, v } of heads) parts.push(positions, k, v);
  return Buffer.concat(parts.map((part) => Buffer.from(part.buffer, part.byteOffset, part.byteLength)));
}
