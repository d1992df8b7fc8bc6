/** OpenAI's legacy log-probabilities of tokens that are no whole characters. */
import { expect, test } from 'vitest';

import type { TokenLogprob } from '../../engine/job/logprobs.ts';
import { TextLogprobs } from '../../functions/openai/text-logprobs.ts';

const token = (bytes: readonly number[]): TokenLogprob => ({ token: new TextDecoder().decode(Uint8Array.from(bytes)), bytes, logprob: -1, top: [] });

test('a token is named by its bytes where it is no text, and what comes after counts characters, as they are complete', () => {
  const bytes = [...new TextEncoder().encode('a😀é')];
  const tokens = [[bytes[0] ?? 0], bytes.slice(1, 3), bytes.slice(3, 5), bytes.slice(5), [0xef, 0xbf, 0xbd]].map(token);
  const kept = new TextLogprobs();
  const [first, rest] = [kept.next(tokens.slice(0, 2)), kept.next(tokens.slice(2))];
  expect([...first.tokens, ...rest.tokens]).toEqual(['a', 'bytes:\\xf0\\x9f', 'bytes:\\x98\\x80', 'é', '\ufffd']);
  expect([...first.text_offset, ...rest.text_offset]).toEqual([0, 1, 1, 2, 3]);
  expect(first.top_logprobs).toEqual([{ a: -1 }, { 'bytes:\\xf0\\x9f': -1 }]);
});
