/**
 * A model whose weights are random and whose vocabulary can write anything: Qwen3's own alphabet of bytes, 640 tokens. Whatever such a model
 * writes in a format, it was made to.
 */
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import { type Tensor, writeSafetensors } from '../../scripts/lib/safetensors.ts';
import { ROOT } from './setup.ts';

/** `<|im_end|>`. */
export const WRITTEN_EOS = 642;

const HIDDEN = 64;
const LAYERS = 2;
const HEADS = 4;
const KV_HEADS = 2;
const HEAD_DIM = 16;
const INTERMEDIATE = 96;
/** 649 tokens, and rows of the embedding that no token has. */
const VOCABULARY = 656;

const TEMPLATE = `{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n`;

export interface WrittenModelOptions {
  readonly seed?: number;
  /** The template ends inside `<think>`. */
  readonly thinks?: boolean;
}

/** @returns `directory/name`, which RUMINATE_MODELS=directory makes known as `name`. */
export function writeModel(directory: string, name: string, { seed = 1, thinks = false }: WrittenModelOptions = {}): string {
  const to = path.join(directory, name);
  mkdirSync(to, { recursive: true });
  const random = normal(seed);
  const matrix = (rows: number, columns: number, scale: number): Tensor => ({ shape: [rows, columns], data: Float32Array.from({ length: rows * columns }, () => scale * random()) });
  const ones = (size: number): Tensor => ({ shape: [size], data: new Float32Array(size).fill(1) });
  const tensors: Record<string, Tensor> = { 'model.embed_tokens.weight': matrix(VOCABULARY, HIDDEN, 1), 'lm_head.weight': matrix(VOCABULARY, HIDDEN, 0.25), 'model.norm.weight': ones(HIDDEN) };
  for (let layer = 0; layer < LAYERS; layer++) {
    const at = `model.layers.${layer}`;
    tensors[`${at}.input_layernorm.weight`] = ones(HIDDEN);
    tensors[`${at}.post_attention_layernorm.weight`] = ones(HIDDEN);
    tensors[`${at}.self_attn.q_norm.weight`] = ones(HEAD_DIM);
    tensors[`${at}.self_attn.k_norm.weight`] = ones(HEAD_DIM);
    tensors[`${at}.self_attn.q_proj.weight`] = matrix(HEADS * HEAD_DIM, HIDDEN, 0.3);
    tensors[`${at}.self_attn.k_proj.weight`] = matrix(KV_HEADS * HEAD_DIM, HIDDEN, 0.3);
    tensors[`${at}.self_attn.v_proj.weight`] = matrix(KV_HEADS * HEAD_DIM, HIDDEN, 0.3);
    tensors[`${at}.self_attn.o_proj.weight`] = matrix(HIDDEN, HEADS * HEAD_DIM, 0.3);
    tensors[`${at}.mlp.gate_proj.weight`] = matrix(INTERMEDIATE, HIDDEN, 0.2);
    tensors[`${at}.mlp.up_proj.weight`] = matrix(INTERMEDIATE, HIDDEN, 0.2);
    tensors[`${at}.mlp.down_proj.weight`] = matrix(HIDDEN, INTERMEDIATE, 0.2);
  }
  writeSafetensors(path.join(to, 'model.safetensors'), tensors);
  writeFileSync(path.join(to, 'config.json'), JSON.stringify({
    architectures: ['Qwen3ForCausalLM'], model_type: 'qwen3', dtype: 'float32', hidden_act: 'silu', attention_bias: false, tie_word_embeddings: false,
    hidden_size: HIDDEN, intermediate_size: INTERMEDIATE, num_hidden_layers: LAYERS, num_attention_heads: HEADS, num_key_value_heads: KV_HEADS, head_dim: HEAD_DIM,
    vocab_size: VOCABULARY, max_position_embeddings: 4_096, rms_norm_eps: 1e-6, rope_theta: 10_000, rope_scaling: null, eos_token_id: WRITTEN_EOS,
    dms_alpha_scale: 1, dms_initial_alpha_offset: 0, dms_window_size: 8, dms_cr: 2,
  }));
  copyFileSync(path.join(ROOT, 'test/fixtures-own/tokenizers/small/qwen3/tokenizer.json'), path.join(to, 'tokenizer.json'));
  writeFileSync(path.join(to, 'tokenizer_config.json'), JSON.stringify({ eos_token: '<|im_end|>', chat_template: thinks ? `${TEMPLATE}<think>\n` : TEMPLATE }));
  return to;
}

/** Mulberry32, and a sum of four of its numbers. */
function normal(seed: number): () => number {
  let state = seed;
  const uniform = () => {
    state = (state + 0x6d2b79f5) | 0;
    let z = Math.imul(state ^ (state >>> 15), 1 | state);
    z = (z + Math.imul(z ^ (z >>> 7), 61 | z)) ^ z;
    return ((z ^ (z >>> 14)) >>> 0) / 2 ** 32;
  };
  return () => (uniform() + uniform() + uniform() + uniform() - 2) * 1.732;
}
