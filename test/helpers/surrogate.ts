/** KVzap surrogates of any size, for models that have none published. */
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import { writeSafetensors, type Tensor } from '../../scripts/lib/safetensors.ts';

/** Linear, with weights that spread the scores of unit-sized activations around 0. Returns the directory. */
export function writeSurrogate(directory: string, { layers, hiddenSize, kvHeads }: { layers: number; hiddenSize: number; kvHeads: number }): string {
  mkdirSync(directory, { recursive: true });
  const config = { model_type: 'kvzap', architectures: ['KVzapModel'], input_dim: hiddenSize, output_dim: kvHeads, hidden_dim: null, n_modules: layers, dtype: 'float32' };
  writeFileSync(path.join(directory, 'config.json'), JSON.stringify(config));
  const tensors: Record<string, Tensor> = {};
  for (let layer = 0; layer < layers; layer++) {
    const weights = Float32Array.from({ length: kvHeads * hiddenSize }, (_, i) => Math.sin(12.9898 * (i + 1) * (layer + 1)) / Math.sqrt(hiddenSize));
    tensors[`layers.${layer}.weight`] = { shape: [kvHeads, hiddenSize], data: weights };
    tensors[`layers.${layer}.bias`] = { shape: [kvHeads], data: new Float32Array(kvHeads) };
  }
  writeSafetensors(path.join(directory, 'model.safetensors'), tensors);
  return directory;
}
