/** Writes a safetensors file: names sorted, header padded to 8 bytes, data packed in the order of the names. */
import { closeSync, openSync, renameSync, rmSync, writeSync } from 'node:fs';

import { EngineError } from '../../engine/core/errors.ts';

export interface Tensor {
  readonly shape: readonly number[];
  readonly data: Float32Array | Int32Array | Uint8Array;
}

/** One write call takes less than 2 GiB. */
const WRITE_BYTES_MAX = 1 << 28;

/** @example writeSafetensors('out.safetensors', { logits: { shape: [4, 128], data: new Float32Array(512) } }) */
export function writeSafetensors(file: string, tensors: Readonly<Record<string, Tensor>>): void {
  const names = Object.keys(tensors).sort();
  const header: Record<string, unknown> = {};
  let offset = 0;
  for (const name of names) {
    const { shape, data } = tensors[name]!;
    if (shape.reduce((product, size) => product * size, 1) !== data.length) {
      throw new EngineError('ERR_INTERNAL', `Tensor ${name} has ${data.length} elements, not the ones of its shape [${shape.join(', ')}].`);
    }
    header[name] = { dtype: typeOf(data), shape, data_offsets: [offset, offset + data.byteLength] };
    offset += data.byteLength;
  }
  const text = JSON.stringify(header);
  const padded = Buffer.from(text.padEnd(text.length + ((8 - (Buffer.byteLength(text) % 8)) % 8)));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(padded.length));

  // Renamed into place: a reader never finds half a file.
  const partial = `${file}.${process.pid}.partial`;
  try {
    const fd = openSync(partial, 'w');
    try {
      writeAll(fd, size);
      writeAll(fd, padded);
      for (const name of names) {
        const { data } = tensors[name]!;
        writeAll(fd, new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
      }
    } finally {
      closeSync(fd);
    }
    renameSync(partial, file);
  } catch (cause) {
    rmSync(partial, { force: true });
    throw new EngineError('ERR_OPTION', `Cannot write ${file}: ${(cause as Error).message}`, { cause });
  }
}

function typeOf(data: Tensor['data']): string {
  if (data instanceof Float32Array) return 'F32';
  return data instanceof Int32Array ? 'I32' : 'U8';
}

function writeAll(fd: number, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at, Math.min(WRITE_BYTES_MAX, bytes.length - at));
}
