/** What the native engine says of a model on this machine, for model.json: whoever prepares jobs for it needs no engine then. */
import { EngineError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { utf8Of } from '../core/bytes.ts';
import { sha256 } from '../kv/canonical.ts';
import { availableMemory } from '../job/memory.ts';
import { inspectModel, openEngine } from '../runtime/native.ts';
import type { EngineCard, VariantCard } from './card.ts';
import { textsIn } from './directory.ts';
import { ggufTexts } from './gguf.ts';
import { modelIdOf } from './identity.ts';
import { type ModelTexts, readTexts } from './texts.ts';

export interface EngineDescription extends Required<Pick<VariantCard, 'engine' | 'model_id'>> {
  readonly engine: EngineCard;
  /** The contents that `engine` names, by SHA-256. */
  readonly contents: ReadonlyMap<string, Uint8Array>;
}

/**
 * Reads all weights once, packed in memory.
 * @throws EngineError as whoever runs the model is told; ERR_MEMORY: it does not fit here.
 */
export async function describeEngine(directory: string, signal: AbortSignal): Promise<EngineDescription> {
  const { policy, ...config } = await inspectModel(directory, []);
  if (policy.name !== 'dense' && policy.name !== 'dms_borrowed' && policy.name !== 'dms_separate') {
    throw new EngineError('ERR_MODEL_CONFIG', `${directory}: a model.json cannot describe the policy ${policy.name}.`);
  }
  const info = { ...config, eosIds: [...config.eosIds], policy: { ...policy, name: policy.name, kvzap: null } };
  const freeBytes = availableMemory();
  if (info.fileBytes > freeBytes) throw new EngineError('ERR_MEMORY', `The weights have ${info.fileBytes} bytes, and ${freeBytes} are available.`);
  const gguf = await ggufTexts(directory);
  const texts: ModelTexts = gguf === null ? textsIn(directory) : { ...gguf, template: null, generationConfig: null };
  const { tokenizer, template } = readTexts(texts, directory);
  tokenizer.checkFits(info.vocabSize);
  using engine = await openEngine({ directory, overrides: [], backend: 'cpu', kv: null, pageSlots: LIMITS.PAGE_SLOTS_DEFAULT, threads: 1, isa: null }, signal);
  const { weightsDigest } = await engine.identity(signal);
  const contents = new Map<string, Uint8Array>();
  const keep = (text: string) => {
    const bytes = utf8Of(text);
    const digest = sha256(bytes);
    contents.set(digest, bytes);
    return { bytes: bytes.byteLength, sha256: digest };
  };
  const keepAny = (text: string | null) => (text === null ? null : keep(text));
  return {
    model_id: modelIdOf({ info, overrides: [], tokenizer, template }, weightsDigest),
    engine: {
      weights_digest: weightsDigest,
      info,
      tokenizer: keep(texts.tokenizer),
      tokenizer_config: keepAny(texts.tokenizerConfig),
      template: keepAny(texts.template),
      generation_config: keepAny(texts.generationConfig),
    },
    contents,
  };
}
