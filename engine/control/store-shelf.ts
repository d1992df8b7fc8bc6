/**
 * Models by what `ruminate models push` wrote of them, for a platform without a native engine: their cards and texts come from the models
 * store, each checked by its SHA-256, and what is prepared of them is what the native shelf prepares, byte for byte. Workers find the same
 * models by name, and refuse a job whose model is another to them.
 */
import { joined, textOfBytes } from '../core/bytes.ts';
import { type Clock, systemClock } from '../core/clock.ts';
import { EngineError } from '../core/errors.ts';
import { Kept } from '../core/kept.ts';
import { LIMITS } from '../core/limits.ts';
import { inParallel } from '../core/waiting.ts';
import type { Quote } from '../job/budget.ts';
import { decodeJournals } from '../job/decode-journals.ts';
import { type LoadedModel, type PreparedJob, prepare, quoteOf } from '../job/prepare.ts';
import { type JobSpec, modelName, parseGenerationConfig, parseSpec } from '../job/spec.ts';
import { type StoredSpec, checkSame, jobSpecOf } from '../job/stored-spec.ts';
import { sha256 } from '../kv/canonical.ts';
import { type Card, type EngineCard, chooseVariant } from '../model/card.ts';
import { modelIdOf } from '../model/identity.ts';
import { modelNames, readCard, revisionsOf } from '../model/store-cards.ts';
import { pieceOf } from '../model/store-layout.ts';
import { type ModelTexts, readTexts } from '../model/texts.ts';
import type { CallOptions, ObjectStore } from '../ports/object-store.ts';
import type { Shelf } from '../ports/shelf.ts';
import type { ModelView } from './platform.ts';

export interface StoreShelfOptions {
  /** As `models push` fills it. */
  readonly models: ObjectStore;
  /** Which of its models jobs may ask for; null: all. */
  readonly names: readonly string[] | null;
  /** What an idle worker has for a job and its weights; null: not known here, and the worker refuses what it cannot hold. */
  readonly workerBytes: number | null;
  readonly clock?: Clock | undefined;
}

/** A model that was pushed again is seen after this. */
const CARDS_MS = 60_000;
const CARDS_AT_ONCE = 8;
/** Of one model, that are looked at for the one of an old job. */
const REVISIONS_MAX = 32;
/** A tokenizer of a large model takes tens of megabytes. */
const MODELS_KEPT = 4;

export class StoreShelf implements Shelf {
  readonly decodeJournals = decodeJournals;
  readonly freeBytes: number;
  readonly #options: StoreShelfOptions;
  readonly #cards: Kept<ReadonlyMap<string, Card>>;
  readonly #models: Kept<LoadedModel>;

  constructor(options: StoreShelfOptions) {
    this.#options = options;
    this.freeBytes = options.workerBytes ?? Number.MAX_SAFE_INTEGER;
    const clock = options.clock ?? systemClock;
    this.#cards = new Kept({ most: 1, forMs: CARDS_MS, clock });
    this.#models = new Kept({ most: MODELS_KEPT, clock });
  }

  async prepare(spec: JobSpec, { signal }: CallOptions = {}): Promise<PreparedJob> {
    const parsed = parseSpec(spec);
    for (const field of ['policy', 'policy_options'] as const) {
      if (parsed[field] !== undefined) throw new EngineError('ERR_OPTION', `${field} is not an option here: a model is as it was pushed; push the variant that is wanted.`);
    }
    return prepare(parsed, await this.#find(modelName(parsed), parsed.budget?.compression_ratio, signal));
  }

  async modelId({ model: { resolved: { name, variantCard } } }: PreparedJob): Promise<string> {
    return engineCardOf(name, variantCard).modelId;
  }

  quote(job: PreparedJob): Quote {
    return quoteOf(job, job.model.info.fileBytes);
  }

  /** Also of a model that was pushed anew since: the store keeps every revision. */
  async restore(stored: StoredSpec, name: string, { signal }: CallOptions = {}): Promise<PreparedJob> {
    const spec = jobSpecOf(stored, null);
    const [model = ''] = modelName(spec).split('@');
    const found = await this.#revision(model, stored.model_id, signal);
    const job = found === null ? await this.prepare(spec, { signal }) : prepare(spec, await this.#loaded(model, found.variant, found.card, signal));
    checkSame(stored, job, await this.modelId(job), name);
    return job;
  }

  async models({ signal }: CallOptions = {}): Promise<readonly ModelView[]> {
    const cards = await this.#catalog(signal);
    return [...cards].flatMap(([name, card]) => offered(card).map(([variant, { compression_ratio, engine }]): ModelView => ({
      id: `${name}@${variant}`,
      compression_ratio,
      context: engine?.info.maxPositions ?? 0,
      default: card.default_variant === variant,
    })));
  }

  async #find(asked: string, cr: number | undefined, signal: AbortSignal | undefined): Promise<LoadedModel> {
    const cards = await this.#catalog(signal);
    const [name = '', variant] = asked.split('@');
    const card = asked.split('@').length > 2 ? undefined : cards.get(name);
    if (card === undefined) {
      const there = [...cards].flatMap(([known, { variants }]) => [known, ...Object.keys(variants).map((one) => `${known}@${one}`)]);
      throw new EngineError('ERR_MODEL_NOT_FOUND', `No model ${JSON.stringify(asked.slice(0, 80))}; there is: ${there.join(', ') || 'none'}.`);
    }
    return await this.#loaded(name, chooseVariant(name, card, variant, cr), card, signal);
  }

  async #loaded(name: string, variant: string, card: Card, signal: AbortSignal | undefined): Promise<LoadedModel> {
    const variantCard = card.variants[variant] ?? null;
    const { engine, modelId } = engineCardOf(`${name}@${variant}`, variantCard);
    const loaded = await this.#models.get(`${name} ${modelId}`, () => this.#load(name, engine, modelId), signal);
    // What is kept is what identity covers; figures and defaults are the card's.
    return { ...loaded, resolved: { name, directory: '', variant, card, variantCard } };
  }

  /** Which of the store's revisions has that very model, the newest first; null: none of those that are looked at. */
  async #revision(name: string, modelId: string, signal: AbortSignal | undefined): Promise<{ readonly card: Card; readonly variant: string } | null> {
    const { models: store } = this.#options;
    const foundIn = (card: Card | null) => {
      const variant = card === null ? undefined : offered(card).find(([, { model_id }]) => model_id === modelId)?.[0];
      return card === null || variant === undefined ? null : { card, variant };
    };
    const newest = (await this.#catalog(signal)).get(name);
    if (newest === undefined) return null;
    let found = foundIn(newest);
    const others = found === null ? (await revisionsOf(store, name, { signal })).slice(0, REVISIONS_MAX) : [];
    for (const revision of others) found ??= foundIn(await readCard(store, name, { signal, revision }).catch(unreadable));
    return found;
  }

  async #catalog(signal: AbortSignal | undefined): Promise<ReadonlyMap<string, Card>> {
    const { models: store, names } = this.#options;
    return await this.#cards.get('', async () => {
      const all = names ?? (await modelNames(store));
      const cards = await inParallel(all.length, CARDS_AT_ONCE, undefined, async (i, stop) => await readCard(store, all[i] ?? '', { signal: stop }).catch(unreadable));
      return new Map(cards.flatMap((card, i) => (card === null || offered(card).length === 0 ? [] : [[all[i] ?? '', card] as const])));
    }, signal);
  }

  async #load(name: string, engine: EngineCard, modelId: string): Promise<LoadedModel> {
    const text = async (content: EngineCard['template']) => (content === null ? null : await this.#read(name, content));
    const texts: ModelTexts = {
      tokenizer: await this.#read(name, engine.tokenizer),
      tokenizerConfig: await text(engine.tokenizer_config),
      template: await text(engine.template),
      generationConfig: await text(engine.generation_config),
    };
    const { info } = engine;
    const { tokenizer, template } = readTexts(texts, name);
    tokenizer.checkFits(info.vocabSize);
    if (modelIdOf({ info, overrides: [], tokenizer, template }, engine.weights_digest) !== modelId) {
      throw new EngineError('ERR_MODEL_CONFIG', `${name}: model.json gives a model_id that is not that of its parts; push the model again.`);
    }
    const samplingDefaults = texts.generationConfig === null ? {} : parseGenerationConfig(texts.generationConfig, `${name}: generation_config.json`);
    return { resolved: { name, directory: '', variant: null, card: null, variantCard: null }, overrides: [], info, tokenizer, template, samplingDefaults };
  }

  async #read(name: string, { bytes, sha256: digest }: EngineCard['tokenizer']): Promise<string> {
    const { models } = this.#options;
    const { key } = pieceOf(name, digest, bytes, 0);
    const body = await models.get(key, { bytesMax: LIMITS.TOKENIZER_BYTES_MAX });
    if (body === null) throw new EngineError('ERR_MODEL_FILE', `${name}: ${key} is not in the models store; push the model again.`);
    if (sha256(joined(body.chunks)) !== digest) throw new EngineError('ERR_MODEL_FILE', `${name}: ${key} is not what model.json says; push the model again.`);
    return textOfBytes(body.chunks);
  }
}

/** A model that cannot be read takes no other from the list. */
function unreadable(error: unknown): null {
  if (error instanceof EngineError && error.code === 'ERR_MODEL_CONFIG') return null;
  throw error;
}

function offered({ variants }: Card): [string, Card['variants'][string]][] {
  return Object.entries(variants).filter(([, { engine, model_id }]) => engine !== undefined && model_id !== undefined);
}

/** @throws EngineError ERR_MODEL_NOT_FOUND: it was pushed without an engine. */
function engineCardOf(name: string, variant: Card['variants'][string] | null): { readonly engine: EngineCard; readonly modelId: string } {
  if (variant?.engine === undefined || variant.model_id === undefined) {
    throw new EngineError('ERR_MODEL_NOT_FOUND', `${name} was pushed without what the engine says of it; push it again where the engine runs.`);
  }
  return { engine: variant.engine, modelId: variant.model_id };
}
