/**
 * A pushed model in a store, all below its name, so that one prefix is one model:
 *   <name>/model.json                         the revision pushed last
 *   <name>/revisions/<revision>/model.json    never changed
 *   <name>/blobs/sha256/ab/<sha256>           contents of up to PIECE_BYTES; longer ones end in `.0`, `.1`, … and are PIECE_BYTES each
 */
import { LIMITS } from '../core/limits.ts';

export const LATEST = '';

export function cardKey(name: string, revision: string): string {
  return revision === LATEST ? `${name}/model.json` : `${name}/revisions/${revision}/model.json`;
}

export interface Piece {
  readonly key: string;
  /** Within the piece. */
  readonly offset: number;
}

/** Where a byte of a file lies. A range of RANGE_BYTES or less that starts at a multiple of its size is in one piece. */
export function pieceOf(name: string, sha256: string, bytes: number, offset: number): Piece {
  const whole = `${name}/blobs/sha256/${sha256.slice(0, 2)}/${sha256}`;
  if (bytes <= LIMITS.PIECE_BYTES) return { key: whole, offset };
  return { key: `${whole}.${Math.floor(offset / LIMITS.PIECE_BYTES)}`, offset: offset % LIMITS.PIECE_BYTES };
}
