/**
 * How many bytes of text one token can stand for, where that can be said: byte-level BPE keeps every byte. Vocabularies that drop spaces, fold
 * text or have one token for all that is unknown cover any length with one.
 */
import { utf8Bytes } from '../core/bytes.ts';
import type { AddedToken } from './encoder.ts';
import { BYTE_OF_CHAR } from './pieces.ts';

type Json = Readonly<Record<string, unknown>>;

/** @param tokens of the vocabulary, written in the alphabet of bytes. null: nothing can be said. */
export function mostBytesPerToken(json: Json, tokens: Iterable<readonly [string, number]>, added: readonly AddedToken[]): number | null {
  const model = (json.model ?? {}) as Json;
  const isWhole = (json.normalizer ?? null) === null && keepsBytes(json.pre_tokenizer) && model.type === 'BPE';
  if (!isWhole || added.some(({ lstrip, rstrip }) => lstrip || rstrip)) return null;
  let most = 1;
  let bytes = 0;
  for (const [token] of tokens) {
    if (BYTE_OF_CHAR.has(token)) bytes += 1;
    // A character a byte.
    most = Math.max(most, token.length);
  }
  for (const { content } of added) most = Math.max(most, utf8Bytes(content));
  return bytes === BYTE_OF_CHAR.size ? most : null;
}

/** Its stages cut text and write it as bytes, and none of them drops any. */
function keepsBytes(stage: unknown): boolean {
  const stages = listOf(stage);
  return stages.some(({ type }) => type === 'ByteLevel') && stages.every(({ type, behavior }) => type === 'ByteLevel' || type === 'Digits' || (type === 'Split' && behavior !== 'Removed'));
}

function listOf(stage: unknown): readonly Json[] {
  if (typeof stage !== 'object' || stage === null) return [];
  const { type, pretokenizers } = stage as Json;
  return type === 'Sequence' && Array.isArray(pretokenizers) ? (pretokenizers as readonly unknown[]).flatMap(listOf) : [stage as Json];
}
