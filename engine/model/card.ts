/**
 * model.json: what a model's variants are and what was measured on them (DESIGN.md 5). Of the bundled model written by
 * scripts/make-model-json.ts, of others when they are pulled or pushed.
 */
import { z } from 'zod';
import { EngineError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';

/** Names become path components and parts of `name@variant`: no separators, no leading dot. */
export const NAME_PATTERN = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;

/** A commit, a tag, a version; a part of object names. */
export const REVISION_PATTERN = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;

/** Of files: no folders, so that no path leaves its own. */
export const FILE_PATTERN = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;

const policyName = z.enum(['dense', 'dms_borrowed', 'dms_separate']);
const weightType = z.enum(['f32', 'f16', 'bf16', 'nf4', 'q8_0', 'q4_0', 'q4_1', 'q4_k', 'q6_k']);
const name = z.string().regex(NAME_PATTERN);
const fileName = z.string().regex(FILE_PATTERN);
const sha256 = z.string().regex(/^[0-9a-f]{64}$/);
const rate = z.number().min(0).max(1);

const taskFigures = z.strictObject({
  problems: z.int().min(1),
  chains: z.int().min(1),
  solve_rate: rate,
  finished: rate,
  tokens: z.number().min(0),
  kv_reads: z.number().min(0),
  achieved_cr: z.number().min(1),
  peak_kv_tokens: z.number().min(0),
});

/** One point of the length-width frontier. `score` is pass@all or majority, as `metric` says. */
const frontierPoint = z.strictObject({
  task: z.string().max(64),
  metric: z.enum(['pass_at_all', 'majority']),
  length: z.int().min(1),
  width: z.int().min(1),
  score: rate,
  standard_error: rate,
  kv_reads: z.number().min(0),
});

const files = z.array(z.strictObject({ path: fileName, bytes: z.int().min(0).max(LIMITS.MODEL_FILE_BYTES_MAX), sha256 })).max(256);

/** A text in the model's blobs. */
const content = z.strictObject({ bytes: z.int().min(0).max(LIMITS.TOKENIZER_BYTES_MAX), sha256 });

const size = z.int().min(1).max(2 ** 40);
const tokenId = z.int().min(0).max(LIMITS.LENGTH_MAX * 4);

/** As the native engine says it (ModelInfo), in its order: a model's identity is a digest of it. */
const modelInfo = z.strictObject({
  modelType: z.string().max(64),
  vocabSize: size,
  hiddenSize: size,
  intermediateSize: size,
  layers: size,
  heads: size,
  kvHeads: size,
  headDim: size,
  maxPositions: size,
  tiedEmbeddings: z.boolean(),
  ropeTheta: z.number().min(0),
  parameters: z.int().min(0),
  fileBytes: z.int().min(0),
  weightType: weightType,
  weightBytes: z.partialRecord(weightType, z.int().min(0)),
  eosIds: z.array(tokenId).max(64),
  bosId: tokenId.nullable(),
  policy: z.strictObject({
    name: policyName,
    window: z.int().min(0),
    alphaScale: z.number(),
    alphaOffset: z.number(),
    alphaPer: z.enum(['head', 'layer']),
    disableEviction: z.boolean(),
    targetCr: z.number().min(0),
    reason: z.string().max(1_024),
    /** A surrogate is a directory of a machine. */
    kvzap: z.null(),
  }),
});

const variant = z.strictObject({
  compression_ratio: z.number().min(1).max(64),
  directory: name,
  policy: z.strictObject({
    name: policyName,
    window: z.int().min(0),
    alpha_scale: z.number(),
    alpha_offset: z.number(),
  }),
  files,
  /** Digest of weights by value, config, tokenizer, template and policy (DESIGN.md 3); absent: never computed. */
  model_id: sha256.optional(),
  /** What the engine says of it, for whoever prepares jobs without one: `models push` asks it. Absent: nobody did. */
  engine: z.strictObject({
    weights_digest: sha256,
    info: modelInfo,
    /** Texts as the engine reads them: of a GGUF file the tokenizer.json that it was made from. */
    tokenizer: content,
    /** null: there is none. */
    tokenizer_config: content.nullable(),
    /** null: what tokenizer_config says, which may be none. */
    template: content.nullable(),
    /** null: no sampling defaults. */
    generation_config: content.nullable(),
  }).optional(),
  /** Absent: nothing was measured. */
  figures: z.strictObject({
    /** Mean kept fraction k = 1 / achieved CR (reads) on `kept_fraction_task`: what a quote expects. */
    kept_fraction: z.number().gt(0).max(1),
    kept_fraction_task: z.string().max(64),
    tasks: z.record(z.string().max(64), taskFigures),
    frontier: z.array(frontierPoint).max(1_024),
  }).optional(),
});

const card = z.strictObject({
  format: z.literal(1),
  name,
  description: z.string().max(1_024),
  source: z.string().max(256),
  /** Of the source (a commit of a hub), or as pushed; absent: a directory that was never published. */
  revision: z.string().regex(REVISION_PATTERN).optional(),
  /** null: the source says none. */
  licence: z.string().max(64).nullable(),
  /** null: a GGUF file has its tokenizer inside. */
  tokenizer_sha256: sha256.nullable(),
  /** null: no template. */
  template_sha256: sha256.nullable(),
  default_variant: name,
  task: z.strictObject({
    answer: z.union([
      z.strictObject({ rule: z.enum(['auto', 'boxed', 'last_number', 'choice', 'exact']) }),
      z.strictObject({ rule: z.literal('after'), marker: z.string().min(1).max(64) }),
    ]),
    verifier: z.string().max(64).nullable(),
    vote: z.enum(['majority', 'first', 'verifier', 'none']),
    thinking: z.strictObject({ open: z.string().min(1).max(64), close: z.string().min(1).max(64) }).nullable(),
  }).nullable(),
  /** Of all variants: licence texts, README. */
  files: files.optional(),
  variants: z.record(name, variant),
});

export type Card = z.infer<typeof card>;
export type VariantCard = Card['variants'][string];
export type EngineCard = NonNullable<VariantCard['engine']>;
export type Figures = NonNullable<VariantCard['figures']>;
export type FrontierPoint = Figures['frontier'][number];

/**
 * Parses the text of a model.json; hostile input ends in ERR_MODEL_CONFIG.
 * @example const { default_variant } = parseCard(readFileSync('models/countdown/model.json', 'utf8'), 'countdown');
 */
export function parseCard(text: string, where: string): Card {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw new EngineError('ERR_MODEL_CONFIG', `${where}: model.json is not JSON.`, { cause });
  }
  const parsed = card.safeParse(json);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw new EngineError('ERR_MODEL_CONFIG', `${where}: model.json: ${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'invalid'}.`);
  }
  if (!Object.hasOwn(parsed.data.variants, parsed.data.default_variant)) {
    throw new EngineError('ERR_MODEL_CONFIG', `${where}: model.json: default_variant ${parsed.data.default_variant} is not a variant.`);
  }
  checkNames(parsed.data, where);
  return parsed.data;
}

/** Every path of the model's directory is one file, and model.json is this one. */
function checkNames({ variants, files = [] }: Card, where: string): void {
  const folders = new Set(Object.values(variants).map((variant) => variant.directory));
  const lists = [['', files] as const, ...Object.values(variants).map((variant) => [`${variant.directory}/`, variant.files] as const)];
  for (const [folder, list] of lists) {
    const seen = new Set<string>(folder === '' ? ['model.json', ...folders] : []);
    for (const { path } of list) {
      if (seen.has(path)) throw new EngineError('ERR_MODEL_CONFIG', `${where}: model.json: ${folder}${path} is named twice.`);
      seen.add(path);
    }
  }
}

/** By name, else by compression ratio, else the card's default. @throws EngineError ERR_MODEL_NOT_FOUND, ERR_OPTION */
export function chooseVariant(name: string, card: Card, variant: string | undefined, cr: number | undefined): string {
  const byRatio = Object.entries(card.variants).filter(([, v]) => v.compression_ratio === cr).map(([key]) => key);
  const chosen = variant ?? (cr === undefined ? card.default_variant : byRatio[0]);
  const variantCard = chosen !== undefined && Object.hasOwn(card.variants, chosen) ? card.variants[chosen] : undefined;
  if (chosen === undefined || variantCard === undefined) {
    const there = Object.entries(card.variants).map(([key, v]) => `${key} (${v.compression_ratio})`).join(', ');
    if (variant === undefined) throw new EngineError('ERR_OPTION', `compression_ratio must be that of a variant of ${name}, which has ${there}; got ${cr}.`);
    throw new EngineError('ERR_MODEL_NOT_FOUND', `${name} has no variant ${JSON.stringify(variant.slice(0, 80))}; it has: ${there}.`);
  }
  if (cr !== undefined && variantCard.compression_ratio !== cr) {
    throw new EngineError('ERR_OPTION', `compression_ratio must be ${variantCard.compression_ratio} for ${name}@${chosen}; got ${cr}.`);
  }
  return chosen;
}
