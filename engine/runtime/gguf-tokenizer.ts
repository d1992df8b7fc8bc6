/** What a GGUF file says of its tokenizer and chat template (native/model/gguf_tokenizer.h). */
export interface GgufTokenizer {
  /** `gpt2`: byte-level BPE; `llama`: SentencePiece BPE. */
  readonly model: string;
  /** Name of the rule that splits a text into words. */
  readonly pre: string | null;
  readonly tokens: readonly string[];
  /** [tokens] 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte. */
  readonly types: Int32Array;
  /** [tokens] */
  readonly scores: Float32Array | null;
  /** "left right", most important first; empty for `llama`. */
  readonly merges: readonly string[];
  readonly bosId: number | null;
  readonly eosId: number | null;
  readonly unkId: number | null;
  readonly addBos: boolean | null;
  readonly addEos: boolean | null;
  readonly addSpacePrefix: boolean | null;
  readonly chatTemplate: string | null;
}
