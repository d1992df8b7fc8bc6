/**
 * Where a model comes from: a directory, a store that models were pushed to, a hub. It lists files with digests and reads ranges of
 * them; what is done with the bytes, and whether they are believed, is engine/model/pull.ts's.
 */
import type { Body, CallOptions, GetOptions } from './object-store.ts';

export interface ModelSource {
  /** For messages and for fetching again; holds no secret. */
  readonly url: string;

  /** @throws EngineError ERR_MODEL_NOT_FOUND, ERR_MODEL_FILE, ERR_MODEL_CONFIG, ERR_STORE, ERR_STORE_CONFIG, ERR_CANCELLED */
  list(options?: CallOptions): Promise<ModelListing>;

  /**
   * Exactly the bytes of the range, tried again as the source allows. `into`: as GetOptions has it.
   * @throws EngineError ERR_MODEL_FILE if the source has fewer, ERR_STORE, ERR_STORE_CONFIG, ERR_CANCELLED.
   */
  read(file: SourceFile, range: ByteRange, options?: CallOptions & Pick<GetOptions, 'into'>): Promise<Body>;
}

export interface ByteRange {
  readonly offset: number;
  readonly bytes: number;
}

export interface ModelListing {
  /** What to call it if nobody says otherwise; matches NAME_PATTERN. */
  readonly name: string;
  readonly revision: string | null;
  readonly licence: string | null;
  /** model.json as published: it names the files, and `files` is empty. null: a plain Hugging Face directory. */
  readonly card: string | null;
  readonly files: readonly SourceFile[];
}

export interface SourceFile {
  /** `config.json`, or `cr8/config.json` of a model with a card. */
  readonly path: string;
  readonly bytes: number;
  readonly digest: Digest;
}

/** `git`: SHA-1 over `blob <bytes>\0` and the content, all that a hub says of files outside LFS. */
export interface Digest {
  readonly algorithm: 'sha256' | 'git';
  readonly hex: string;
}
