/** Reads the small, trusted safetensors files of test/fixtures. */
import { readFileSync } from 'node:fs';

type TypedArray = Float32Array | Int32Array | Uint8Array;

export interface TensorFile {
  f32(name: string): Float32Array;
  i32(name: string): Int32Array;
  u8(name: string): Uint8Array;
  shape(name: string): readonly number[];
  readonly names: readonly string[];
}

/** @example readSafetensors(fixture('dense_qwen3.safetensors')).f32('logits') */
export function readSafetensors(file: string): TensorFile {
  const bytes = readFileSync(file);
  const headerBytes = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.toString('utf8', 8, 8 + headerBytes)) as Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }>;
  const read = <T extends TypedArray>(name: string, dtype: string, make: (buffer: ArrayBuffer) => T): T => {
    const entry = header[name];
    if (entry?.dtype !== dtype) throw new Error(`${file} has no ${dtype} tensor ${name}`);
    const [begin, end] = entry.data_offsets;
    // Copied: tensors need not be aligned in the file.
    return make(Uint8Array.from(bytes.subarray(8 + headerBytes + begin, 8 + headerBytes + end)).buffer);
  };
  return {
    f32: (name) => read(name, 'F32', (buffer) => new Float32Array(buffer)),
    i32: (name) => read(name, 'I32', (buffer) => new Int32Array(buffer)),
    u8: (name) => read(name, 'U8', (buffer) => new Uint8Array(buffer)),
    shape: (name) => header[name]?.shape ?? [],
    names: Object.keys(header).filter((name) => name !== '__metadata__'),
  };
}
