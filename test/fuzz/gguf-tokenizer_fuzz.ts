/** What the native reader (native/fuzz/gguf_fuzz.cc) lets through of a GGUF file's tokenizer: any strings, types, scores and ids that fit the vocabulary. */
import type { GgufTokenizer } from '../../engine/runtime/gguf-tokenizer.ts';
import { templateIn } from '../../engine/model/directory.ts';
import { tokenizerOf } from '../../engine/model/gguf.ts';
import { partsOf, refused, shortenWaits } from './input.ts';
import { use } from './use.ts';

shortenWaits();

/** A field of the file: absent, or with a value. */
const optional = (flag: string | undefined) => (flag === '1' ? true : flag === '0' ? false : null);

/** Parts: model, word rule, six flags and ids, "type score token" a line, a merge a line, the text, the chat template. */
export function fuzz(data: Uint8Array): void {
  const [model = '', pre = '', options = '', vocabulary = '', merges = '', text = '', chatTemplate] = partsOf(data);
  const rows = vocabulary.split('\n').map((line) => /^(-?\d{1,3}) (-?[\d.]{1,9}) (.*)$/s.exec(line) ?? ['', '1', '0', line]);
  const [addBos, addEos, addSpacePrefix, bos, eos, unknown] = options.split(' ');
  const idOf = (id: string | undefined) => (id !== undefined && /^\d{1,6}$/.test(id) && Number(id) < rows.length ? Number(id) : null);
  const gguf: GgufTokenizer = {
    model,
    pre: pre === '' ? null : pre,
    tokens: rows.map((row) => row[3] ?? ''),
    types: Int32Array.from(rows, (row) => Number(row[1])),
    scores: model === 'gpt2' ? null : Float32Array.from(rows, (row) => Number(row[2])),
    merges: merges === '' ? [] : merges.split('\n'),
    bosId: idOf(bos), eosId: idOf(eos), unkId: idOf(unknown),
    addBos: optional(addBos), addEos: optional(addEos), addSpacePrefix: optional(addSpacePrefix),
    chatTemplate: chatTemplate ?? null,
  };
  refused(['ERR_TOKENIZER', 'ERR_TEMPLATE'], () => {
    const tokenizer = tokenizerOf(gguf, 'fuzz.gguf');
    use(tokenizer, text);
    const { config, bosToken, eosToken } = tokenizer;
    templateIn('.', config)?.render({ messages: [{ role: 'user', content: text }], addGenerationPrompt: true, bosToken, eosToken });
  });
}
