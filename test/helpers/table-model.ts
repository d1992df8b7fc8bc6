/**
 * A real model, small enough to say by hand what it will write: attention and MLP add nothing, so that the next token depends on the last one
 * alone, by a table that is its output matrix. It has a tokenizer (bytes, and a token for each piece of its table) and a chat template.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import { BYTE_CHARS } from '../unit/tokenizers.ts';

export interface TableModel {
  /** Jinja; what it writes last decides how the model begins. */
  readonly template: string;
  /** What the model writes, piece after piece; the first of each is what it goes on from. No piece twice, unless what follows is the same, or one of both. */
  readonly lines: readonly (readonly string[])[];
  /** Pieces whose tokens are special, beside END. */
  readonly special?: readonly string[];
  /** Of the prompt and what is written. */
  readonly context?: number;
}

export const END = '<|end|>';

/** The likelihood of what the table names and of nothing else: e^30 times that of any other token. */
const LOGIT = 30;

/** Writes the model's directory. */
export function writeTableModel(directory: string, { template, lines, special = [], context = 4_096 }: TableModel): void {
  const pieces = [...new Set([END, ...lines.flat()])];
  const vocabSize = BYTE_CHARS.length + pieces.length;
  const idOf = (piece: string) => BYTE_CHARS.length + pieces.indexOf(piece);
  mkdirSync(directory, { recursive: true });
  const write = (name: string, content: object) => writeFileSync(path.join(directory, name), JSON.stringify(content));
  write('config.json', {
    architectures: ['LlamaForCausalLM'], model_type: 'llama', hidden_size: vocabSize, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 1,
    num_key_value_heads: 1, head_dim: 16, hidden_act: 'silu', max_position_embeddings: context, rms_norm_eps: 1e-6, rope_theta: 10_000, tie_word_embeddings: false,
    vocab_size: vocabSize, bos_token_id: idOf(END), eos_token_id: idOf(END), torch_dtype: 'float32',
  });
  write('tokenizer.json', {
    version: '1.0', normalizer: null, post_processor: null, decoder: { type: 'ByteLevel' },
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
    added_tokens: pieces.map((content) => ({ id: idOf(content), content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: content === END || special.includes(content) })),
    model: { type: 'BPE', vocab: Object.fromEntries(BYTE_CHARS.map((char, byte) => [char, byte])), merges: [] },
  });
  write('tokenizer_config.json', { tokenizer_class: 'PreTrainedTokenizerFast', eos_token: END, chat_template: template });
  writeFileSync(path.join(directory, 'model.safetensors'), safetensors(weights(vocabSize, lines, idOf)));
}

function weights(size: number, lines: TableModel['lines'], idOf: (piece: string) => number): Readonly<Record<string, readonly [shape: readonly number[], values: Float32Array]>> {
  const zeros = (...shape: number[]) => [shape, new Float32Array(shape.reduce((a, b) => a * b))] as const;
  const ones = (n: number) => [[n], new Float32Array(n).fill(1)] as const;
  // The row of a token is a unit vector, which RMSNorm makes sqrt(size) long.
  const [, embedding] = zeros(size, size);
  for (let id = 0; id < size; id++) embedding[id * size + id] = 1;
  const [, table] = zeros(size, size);
  for (const line of lines) {
    for (const [i, piece] of line.entries()) {
      const next = line[i + 1] ?? END;
      if (piece !== END) table[idOf(next) * size + idOf(piece)] = LOGIT / Math.sqrt(size);
    }
  }
  const layer = 'model.layers.0';
  return {
    'model.embed_tokens.weight': [[size, size], embedding],
    'lm_head.weight': [[size, size], table],
    'model.norm.weight': ones(size),
    [`${layer}.input_layernorm.weight`]: ones(size),
    [`${layer}.post_attention_layernorm.weight`]: ones(size),
    [`${layer}.self_attn.q_proj.weight`]: zeros(16, size),
    [`${layer}.self_attn.k_proj.weight`]: zeros(16, size),
    [`${layer}.self_attn.v_proj.weight`]: zeros(16, size),
    [`${layer}.self_attn.o_proj.weight`]: zeros(size, 16),
    [`${layer}.mlp.gate_proj.weight`]: zeros(16, size),
    [`${layer}.mlp.up_proj.weight`]: zeros(16, size),
    [`${layer}.mlp.down_proj.weight`]: zeros(size, 16),
  };
}

function safetensors(tensors: ReturnType<typeof weights>): Buffer {
  const header: Record<string, object> = {};
  let at = 0;
  for (const [name, [shape, values]] of Object.entries(tensors)) {
    header[name] = { dtype: 'F32', shape, data_offsets: [at, at + values.byteLength] };
    at += values.byteLength;
  }
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([length, json, ...Object.values(tensors).map(([, values]) => Buffer.from(values.buffer))]);
}
