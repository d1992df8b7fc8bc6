/** What a job does with a tokenizer: every way in and out of it. */
import { Detokenizer } from '../../engine/model/detokenizer.ts';
import type { Tokenizer } from '../../engine/model/tokenizer.ts';
import { refused } from './input.ts';

/** More rows than ids: padding, which has no text. */
const PADDING = 3;

export function use(tokenizer: Tokenizer, text: string): void {
  // Each on its own: that a text cannot be encoded says nothing about decoding.
  let ids: readonly number[] = [];
  refused(['ERR_TOKENIZER'], () => {
    ids = tokenizer.encode(text, { addSpecial: true });
  });
  const wrong = ids.find((id) => !Number.isInteger(id) || id < 0 || id >= tokenizer.vocabSize);
  if (wrong !== undefined) throw new Error(`encode gave ${wrong}, which is no id of ${tokenizer.vocabSize}`);
  refused(['ERR_TOKENIZER'], () => streamed(tokenizer, ids));
  const every = Array.from({ length: Math.min(tokenizer.vocabSize + PADDING, 1_000) }, (_, id) => id);
  refused(['ERR_TOKENIZER'], () => streamed(tokenizer, every));
  refused(['ERR_TOKENIZER'], () => void tokenizer.pieces(tokenizer.vocabSize + PADDING));
}

/** A text that comes token by token is the text that comes at once. */
function streamed(tokenizer: Tokenizer, ids: readonly number[]): void {
  const whole = tokenizer.decode(ids, { skipSpecial: true });
  const detokenizer = new Detokenizer(tokenizer);
  const stream = ids.map((id) => detokenizer.push([id])).join('') + detokenizer.flush();
  if (stream !== whole) throw new Error(`the stream ${JSON.stringify(stream)} is not the text ${JSON.stringify(whole)}`);
}
