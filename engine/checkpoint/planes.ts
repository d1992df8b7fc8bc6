/** Codec 1 of docs/CHECKPOINT.md, decoded without native code: element bytes, then one zstd frame of byte planes. */
import { decompress } from 'fzstd';

/** Of zstd: what the least block can mean. */
const BLOCK_BYTES = { least: 4, most: 128 << 10 };
const ZSTD_MAGIC = 0xfd2fb528;

/** Whether so many stored bytes can mean so many. */
export function isPlausible(storedBytes: number, rawBytes: number): boolean {
  return rawBytes > 0 && storedBytes > 1 && rawBytes <= Math.floor(storedBytes / BLOCK_BYTES.least) * BLOCK_BYTES.most;
}

/** null: it does not decode to exactly `rawBytes`. Nothing is allocated before the frame has said that it would. */
export function joinedPlanes(coded: Uint8Array, rawBytes: number): Uint8Array | null {
  const elementBytes = coded[0];
  if (elementBytes !== 1 && elementBytes !== 2 && elementBytes !== 4) return null;
  const frame = coded.subarray(1);
  if (contentBytes(frame) !== rawBytes) return null;
  let planes: Uint8Array;
  try {
    planes = decompress(frame, new Uint8Array(rawBytes));
  } catch {
    return null;
  }
  if (planes.byteLength !== rawBytes) return null;
  if (elementBytes === 1) return planes;
  const numbers = Math.floor(rawBytes / elementBytes);
  const raw = new Uint8Array(rawBytes);
  const view = new DataView(raw.buffer);
  for (let i = 0; i < numbers; i++) {
    let value = 0;
    for (let plane = 0; plane < elementBytes; plane++) value = ((value << 8) | (planes[plane * numbers + i] as number)) >>> 0;
    if (elementBytes === 2) view.setUint16(2 * i, (value >>> 1) | ((value & 1) << 15), true);
    else view.setUint32(4 * i, ((value >>> 1) | ((value & 1) << 31)) >>> 0, true);
  }
  raw.set(planes.subarray(numbers * elementBytes), numbers * elementBytes);
  return raw;
}

/**
 * What a zstd frame says is in it (RFC 8878, 3.1.1); null: it does not say, or this is not one whole frame and nothing else. A window larger
 * than the content would be memory for nothing, and no encoder that knows the length asks for one.
 */
function contentBytes(frame: Uint8Array): number | null {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  try {
    if (view.getUint32(0, true) !== ZSTD_MAGIC) return null;
    const descriptor = view.getUint8(4);
    const isSingle = (descriptor & 0x20) !== 0;
    // No dictionary, no reserved bit.
    if ((descriptor & 0x0b) !== 0) return null;
    const fieldBytes = [isSingle ? 1 : 0, 2, 4, 8][descriptor >> 6] as number;
    let at = isSingle ? 5 : 6;
    const size = sizeField(view, at, fieldBytes);
    if (size === null || (!isSingle && windowBytes(view.getUint8(5)) > Math.max(2 * size, 1 << 10))) return null;
    at += fieldBytes;
    for (let isLast = false; !isLast;) {
      const header = view.getUint16(at, true) | (view.getUint8(at + 2) << 16);
      const type = (header >> 1) & 3;
      if (type === 3) return null;
      isLast = (header & 1) === 1;
      at += 3 + (type === 1 ? 1 : header >> 3);
    }
    if ((descriptor & 4) !== 0) at += 4;
    return at === frame.byteLength ? size : null;
  } catch {
    // Beyond its end.
    return null;
  }
}

function sizeField(view: DataView, at: number, bytes: number): number | null {
  if (bytes === 0) return null;
  if (bytes === 1) return view.getUint8(at);
  if (bytes === 2) return view.getUint16(at, true) + 256;
  return bytes === 4 ? view.getUint32(at, true) : Number(view.getBigUint64(at, true));
}

function windowBytes(descriptor: number): number {
  const base = 2 ** (10 + (descriptor >> 3));
  return base + (base / 8) * (descriptor & 7);
}
