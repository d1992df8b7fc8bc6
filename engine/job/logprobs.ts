/** Log-probabilities of tokens, as readers are told of them. */
import type { Tokenizer } from '../model/tokenizer.ts';
import type { Logprobs } from '../runtime/native.ts';

export interface Alternative {
  /** As text; bytes that are no whole character become U+FFFD. */
  readonly token: string;
  readonly bytes: readonly number[];
  /** Natural logarithm, under the model's own distribution (docs/NUMERICS.md). */
  readonly logprob: number;
}

export interface TokenLogprob extends Alternative {
  /** The likeliest in its place, best first. */
  readonly top: readonly Alternative[];
}

/** As a result has them: by token, and of each alternative its id too. */
export interface ChainLogprobs {
  readonly tokens: readonly number[];
  readonly top: readonly (readonly (readonly [id: number, logprob: number])[])[];
}

/** Of the `index`-th token that a chain generated, which is `token`. */
export function tokenLogprob(tokenizer: Tokenizer, logprobs: Logprobs, index: number, token: number): TokenLogprob {
  const { top, tokens, topIds, topValues } = logprobs;
  const of = (id: number, logprob: number): Alternative => {
    const bytes = tokenizer.piece(id, false);
    return { token: new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes), bytes: [...bytes], logprob };
  };
  const places = Array.from({ length: top }, (_, k) => index * top + k);
  return { ...of(token, tokens[index] ?? 0), top: places.map((at) => of(topIds[at] ?? 0, topValues[at] ?? 0)) };
}

export function chainLogprobs({ top, tokens, topIds, topValues }: Logprobs): ChainLogprobs {
  const pair = (at: number): readonly [number, number] => [topIds[at] ?? 0, topValues[at] ?? 0];
  return { tokens: [...tokens], top: [...tokens].map((_, i) => Array.from({ length: top }, (_unused, k) => pair(i * top + k))) };
}
