/** Log-probabilities as OpenAI's text completions have them: lists with a place for each token, side by side. */
import { z } from '@hono/zod-openapi';

import type { Alternative, TokenLogprob } from '../../engine/job/logprobs.ts';

export const textLogprobsSchema = z.object({
  tokens: z.array(z.string()).openapi({ description: 'As text, and where that is no whole character `bytes:\\xe2\\x98`.' }),
  token_logprobs: z.array(z.number()),
  top_logprobs: z.array(z.record(z.string(), z.number())).openapi({ description: 'The likeliest in its place, and the token itself.' }),
  text_offset: z.array(z.int()).openapi({ description: 'Characters that the tokens before it make; one that several make counts after the last of them. The text may leave out a space that the first begins with.' }),
}).openapi('TextLogprobs');

export type LegacyLogprobs = z.infer<typeof textLogprobsSchema>;

/** Of one choice, whose tokens come in order. */
export class TextLogprobs {
  readonly #decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  #chars = 0;

  next(logprobs: readonly TokenLogprob[]): LegacyLogprobs {
    return {
      tokens: logprobs.map(nameOf),
      token_logprobs: logprobs.map(({ logprob }) => logprob),
      top_logprobs: logprobs.map((one) => Object.fromEntries([...one.top, one].map((token) => [nameOf(token), token.logprob]))),
      text_offset: logprobs.map(({ bytes }) => {
        const at = this.#chars;
        this.#chars += charsOf(this.#decoder.decode(Uint8Array.from(bytes), { stream: true }));
        return at;
      }),
    };
  }
}

function nameOf({ token, bytes }: Alternative): string {
  // A token may also be that character.
  if (!token.includes('\ufffd') || new TextEncoder().encode(token).length === bytes.length) return token;
  return `bytes:${bytes.map((byte) => `\\x${byte.toString(16).padStart(2, '0')}`).join('')}`;
}

/** As Python counts them: a pair of surrogates is one. */
function charsOf(text: string): number {
  return [...text].length;
}
