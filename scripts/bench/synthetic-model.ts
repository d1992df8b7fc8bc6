/**
 * A model in the shape of the bundled one and as large as is asked for, with weights of chance: for what depends on bytes and not on sense. It evicts as often as the
 * bundled one of CR 8, so that its cache and its checkpoints are of the size that they have with such models.
 */
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import { seededRandom } from '../../engine/adapters/memory-faults.ts';
import { type Tensor, writeSafetensors } from '../lib/safetensors.ts';
import { ROOT } from './conditions.ts';

export interface SyntheticShape {
  readonly hidden: number;
  readonly layers: number;
  readonly intermediate: number;
  readonly heads: number;
  readonly kvHeads: number;
}

/** 0.4 GB of F32. */
export const LARGE_SHAPE: SyntheticShape = { hidden: 1_024, layers: 8, intermediate: 2_816, heads: 16, kvHeads: 4 };
/** 25 MB. */
export const SMALL_SHAPE: SyntheticShape = { hidden: 256, layers: 8, intermediate: 768, heads: 8, kvHeads: 2 };

const HEAD_DIM = 64;
/** Small enough that nothing overflows in so few layers. */
const SCALE = 0.04;
/** By trial: of the tokens past the window 13 to 15 % stay with it in both shapes, as in the bundled model of CR 8. With weights of chance and its own offset half would. */
const ALPHA_OFFSET = -120;
/** Weights repeat after so many: making them takes no time, and no two rows are alike. */
const CYCLE = 1_000_003;

/** @returns `directory/name`, as `RUMINATE_MODELS=directory` knows it. */
export function writeSyntheticModel(directory: string, name: string, { hidden, layers, intermediate, heads, kvHeads }: SyntheticShape): string {
  const [from, to] = [path.join(ROOT, 'models', 'countdown', 'cr8'), path.join(directory, name)];
  mkdirSync(to, { recursive: true });
  const config = JSON.parse(readFileSync(path.join(from, 'config.json'), 'utf8')) as { readonly vocab_size: number };
  const random = seededRandom(1);
  const cycle = Float32Array.from({ length: CYCLE }, () => SCALE * (random() + random() - 1));
  let at = 0;
  const matrix = (rows: number, columns: number): Tensor => {
    const data = new Float32Array(rows * columns);
    for (let filled = 0; filled < data.length;) {
      const piece = cycle.subarray(at, at + data.length - filled);
      data.set(piece, filled);
      filled += piece.length;
      at = (at + piece.length) % CYCLE;
    }
    return { shape: [rows, columns], data };
  };
  const ones = (size: number): Tensor => ({ shape: [size], data: new Float32Array(size).fill(1) });
  const tensors: Record<string, Tensor> = { 'model.embed_tokens.weight': matrix(config.vocab_size, hidden), 'model.norm.weight': ones(hidden) };
  for (let layer = 0; layer < layers; layer++) {
    const of = `model.layers.${layer}`;
    Object.assign(tensors, {
      [`${of}.input_layernorm.weight`]: ones(hidden),
      [`${of}.post_attention_layernorm.weight`]: ones(hidden),
      [`${of}.self_attn.q_norm.weight`]: ones(HEAD_DIM),
      [`${of}.self_attn.k_norm.weight`]: ones(HEAD_DIM),
      [`${of}.self_attn.q_proj.weight`]: matrix(heads * HEAD_DIM, hidden),
      [`${of}.self_attn.k_proj.weight`]: matrix(kvHeads * HEAD_DIM, hidden),
      [`${of}.self_attn.v_proj.weight`]: matrix(kvHeads * HEAD_DIM, hidden),
      [`${of}.self_attn.o_proj.weight`]: matrix(hidden, heads * HEAD_DIM),
      [`${of}.mlp.gate_proj.weight`]: matrix(intermediate, hidden),
      [`${of}.mlp.up_proj.weight`]: matrix(intermediate, hidden),
      [`${of}.mlp.down_proj.weight`]: matrix(hidden, intermediate),
    });
  }
  writeSafetensors(path.join(to, 'model.safetensors'), tensors);
  writeFileSync(path.join(to, 'config.json'), JSON.stringify({
    ...config, dms_initial_alpha_offset: ALPHA_OFFSET, hidden_size: hidden, intermediate_size: intermediate, num_hidden_layers: layers, num_attention_heads: heads, num_key_value_heads: kvHeads, head_dim: HEAD_DIM,
    max_window_layers: layers,
  }));
  for (const file of ['generation_config.json', 'tokenizer.json', 'tokenizer_config.json']) copyFileSync(path.join(from, file), path.join(to, file));
  return to;
}
