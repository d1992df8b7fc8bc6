/** Greedy tokens of another engine against our logits: teacher-forced, so that one near tie does not hide what comes after it. */
import type { NativeEngine } from '../../engine/runtime/native.ts';

export interface Agreement {
  readonly tokens: number;
  readonly same: number;
  /** By how much our best token beats theirs where they differ, largest first. */
  readonly margins: readonly number[];
}

export async function agreement(engine: NativeEngine, prompts: readonly (readonly number[])[], greedy: readonly (readonly number[])[]): Promise<Agreement> {
  const { vocabSize } = engine.info;
  let tokens = 0;
  const margins: number[] = [];
  for (const [i, prompt] of prompts.entries()) {
    const theirs = greedy[i] ?? [];
    const ids = Int32Array.from([...prompt, ...theirs]);
    const { logits } = await engine.forward({ ids, promptLen: ids.length, chunk: 64 });
    for (const [k, token] of theirs.entries()) {
      const row = logits.subarray((prompt.length - 1 + k) * vocabSize, (prompt.length + k) * vocabSize);
      const best = row.reduce((at, value, id) => (value > (row[at] ?? Number.NaN) ? id : at), 0);
      tokens++;
      if (best !== token) margins.push((row[best] ?? Number.NaN) - (row[token] ?? Number.NaN));
    }
  }
  return { tokens, same: tokens - margins.length, margins: margins.sort((a, b) => b - a) };
}
