/** Any bytes as tokenizer.json, a text to encode, and tokenizer_config.json. */
import { Tokenizer } from '../../engine/model/tokenizer.ts';
import { partsOf, refused, shortenWaits } from './input.ts';
import { use } from './use.ts';

shortenWaits();

export function fuzz(data: Uint8Array): void {
  const [json = '', text = '', config = '{}'] = partsOf(data);
  refused(['ERR_TOKENIZER'], () => use(Tokenizer.parse(json, config), text));
}
