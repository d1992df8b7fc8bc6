/**
 * What each token adds to the text, as bytes. Text = the concatenated pieces, less one leading space (`stripLeadingSpace`): Metaspace
 * and word vocabularies write the space before each word, and a text does not begin with one.
 *
 * Decoders that look across tokens other than by joining (CTC, BPE suffixes) have no pieces and are refused.
 */
import { EngineError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { Measure, replacedAll } from './measure.ts';

export interface PieceRule {
  /** The bytes of an ordinary (not added) token. */
  bytesOf(token: string): Uint8Array;
  readonly stripLeadingSpace: boolean;
  /** Whether added tokens stand for their own text. Only byte-level vocabularies write tokens in an alphabet that added ones do not use. */
  readonly addedAsText: boolean;
}

const utf8 = new TextEncoder();
const NO_BYTES = new Uint8Array(0);

interface DecoderConfig {
  readonly type: string;
  readonly [key: string]: unknown;
}

/** @throws EngineError ERR_TOKENIZER if the decoder has no rule. */
export function pieceRule(decoder: DecoderConfig | null): PieceRule {
  // Hugging Face joins with spaces when there is no decoder.
  if (decoder === null) return { bytesOf: (token) => utf8.encode(` ${token}`), stripLeadingSpace: true, addedAsText: false };
  switch (decoder.type) {
    case 'ByteLevel':
      return { bytesOf: byteLevelBytes, stripLeadingSpace: false, addedAsText: true };
    case 'WordPiece': {
      const prefix = stringOf(decoder, 'prefix', '##');
      return {
        bytesOf: (token) => utf8.encode(prefix !== '' && token.startsWith(prefix) ? token.slice(prefix.length) : ` ${token}`),
        stripLeadingSpace: true,
        addedAsText: false,
      };
    }
    case 'Metaspace':
      return sequenceRule([decoder]);
    case 'Sequence':
    case 'Replace':
    case 'ByteFallback':
    case 'Fuse':
    case 'Strip':
      return sequenceRule(decoder.type === 'Sequence' ? (decoder.decoders as DecoderConfig[]) : [decoder]);
    default:
      throw unsupported(decoder.type);
  }
}

/** Llama's Replace, ByteFallback, Fuse, Strip. After Fuse there is one string, so Strip means its first space. */
function sequenceRule(decoders: readonly DecoderConfig[]): PieceRule {
  if (!Array.isArray(decoders)) throw unsupported('Sequence');
  if (decoders.length === 1 && decoders[0]?.type === 'ByteLevel') return pieceRule(decoders[0]);
  const replacements: (readonly [string, string])[] = [];
  let byteFallback = false;
  let fused = false;
  let stripLeadingSpace = false;
  for (const decoder of decoders) {
    if (decoder.type === 'Replace' && !fused) {
      const from = (decoder.pattern as { String?: unknown } | undefined)?.String;
      if (typeof from !== 'string' || from === '') throw unsupported('Replace with a regular expression');
      replacements.push([from, stringOf(decoder, 'content', '')]);
    } else if (decoder.type === 'ByteFallback' && !fused) byteFallback = true;
    else if (decoder.type === 'Fuse') fused = true;
    else if (decoder.type === 'Metaspace' && !fused) {
      replacements.push([stringOf(decoder, 'replacement', '▁'), ' ']);
      stripLeadingSpace = decoder.prepend_scheme !== 'never';
    } else if (decoder.type === 'Strip' && fused && decoder.content === ' ' && decoder.start === 1 && (decoder.stop ?? 0) === 0) {
      stripLeadingSpace = true;
    } else throw unsupported(`Sequence with ${decoder.type}`);
  }
  const measure = new Measure(LIMITS.TOKEN_BYTES_MAX);
  return {
    bytesOf(token) {
      measure.reset();
      const byte = byteFallback ? /^<0x([0-9A-Fa-f]{2})>$/.exec(token)?.[1] : undefined;
      if (byte !== undefined) return Uint8Array.of(Number.parseInt(byte, 16));
      return utf8.encode(replacements.reduce((text, [from, to]) => replacedAll(text, from, to, measure), token));
    },
    stripLeadingSpace,
    addedAsText: false,
  };
}

/** GPT-2's table: printable Latin-1 stands for itself, the other bytes for the characters from U+0100 on. */
/** The alphabet in which byte-level vocabularies write bytes. */
export const BYTE_OF_CHAR: ReadonlyMap<string, number> = (() => {
  const table = new Map<string, number>();
  let next = 256;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    table.set(String.fromCharCode(printable ? byte : next++), byte);
  }
  return table;
})();

/** As the Rust library: a token with a character outside the table stands for its own text. */
function byteLevelBytes(token: string): Uint8Array {
  const bytes: number[] = [];
  for (const char of token) {
    const byte = BYTE_OF_CHAR.get(char);
    if (byte === undefined) return utf8.encode(token);
    bytes.push(byte);
  }
  return bytes.length === 0 ? NO_BYTES : Uint8Array.from(bytes);
}

function stringOf(config: DecoderConfig, key: string, fallback: string): string {
  const value = config[key];
  return typeof value === 'string' ? value : fallback;
}

function unsupported(what: string): EngineError {
  return new EngineError('ERR_TOKENIZER', `tokenizer.json: the decoder ${what} is not supported.`);
}
