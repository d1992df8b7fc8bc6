/** What a caller asks for: parsed and bounded here, completed from the model by `completeSpec`. */
import { z } from 'zod';
import { utf8Bytes } from '../core/bytes.ts';
import { EngineError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { parseDate } from '../model/strftime.ts';
import { patternProblem } from './answer.ts';
import { checkFormat, formatOf } from './grammar.ts';

/** Says what is allowed; `parseSpec` adds the field's name before it and what was given after it. */
function rule<T>(allowed: string, accepts: (value: unknown) => boolean) {
  return z.custom<T>(accepts, { error: allowed });
}

const integer = (least: number, most: number) =>
  rule<number>(`must be an integer from ${least} to ${most}`, (v) => Number.isSafeInteger(v) && (v as number) >= least && (v as number) <= most);
const real = (least: number, most: number, open = false) =>
  rule<number>(`must be a number ${open ? 'above' : 'from'} ${least}${open ? ' and up' : ''} to ${most}`, (v) =>
    typeof v === 'number' && (open ? v > least : v >= least) && v <= most);
/**
 * A number the sampler uses, which computes in float32: one that vanishes or reaches an open bound there would mean something else.
 */
const float = (least: number, most: number, { above = false, below = false } = {}) => {
  const range = `must be a number ${above ? 'above' : 'from'} ${least}${above && !below ? ' and up' : ''} to ${below ? 'below ' : ''}${most}`;
  const inside = (v: number) => (above ? v > least : v >= least) && (below ? v < most : v <= most);
  return z.unknown().transform((v, context): number => {
    const given = typeof v === 'number' ? v : NaN;
    const vanishes = given !== 0 && Math.fround(given) === 0;
    if (inside(given) && !vanishes && inside(Math.fround(given))) return given;
    context.addIssue({ code: 'custom', message: inside(given) ? `${range} in float32, where this is ${Math.fround(given)}` : range });
    return z.NEVER;
  });
};
const text = (bytesMax: number, what = 'text') =>
  rule<string>(`must be ${what} of 1 to ${bytesMax} bytes`, (v) => typeof v === 'string' && v !== '' && utf8Bytes(v) <= bytesMax);
const choice = <const T extends readonly string[]>(...names: T) =>
  rule<T[number]>(`must be one of ${names.join(', ')}`, (v) => names.includes(v as T[number]));
const anyText = () => rule<string>('must be text', (v) => typeof v === 'string');
const bool = () => rule<boolean>('must be true or false', (v) => typeof v === 'boolean');
const list = <T extends z.ZodType>(item: T, most: number) => z.array(item, { error: 'must be a list' }).max(most, { error: `must have at most ${most} entries` });
/** Handed to the chat template as it is; bounded as a whole in `parseSpec`. */
const jsonObject = () => rule<Record<string, unknown>>('must be a JSON object', isJsonObject);

const isRawPrompt = (v: unknown): boolean => (typeof v === 'string'
  ? v !== '' && utf8Bytes(v) <= LIMITS.PROMPT_BYTES_MAX
  : Array.isArray(v) && v.length > 0 && v.length <= LIMITS.LENGTH_MAX && v.every((id) => Number.isSafeInteger(id) && id >= 0));

const samplingSchema = z.strictObject({
  /** 0: greedy. */
  temperature: float(0, LIMITS.TEMPERATURE_MAX).optional(),
  /** 0: off. */
  top_k: integer(0, LIMITS.TOP_K_MAX).optional(),
  top_p: float(0, 1, { above: true }).optional(),
  min_p: float(0, 1, { below: true }).optional(),
  repetition_penalty: float(0, LIMITS.REPETITION_PENALTY_MAX, { above: true }).optional(),
  presence_penalty: float(-2, 2).optional(),
  frequency_penalty: float(-2, 2).optional(),
  /** [token id, bias] */
  logit_bias: list(z.tuple([integer(0, LIMITS.LENGTH_MAX * 4), float(-100, 100)], { error: 'must be a pair [token id, bias]' }), LIMITS.LOGIT_BIAS_MAX).optional(),
});

const budgetSchema = z.strictObject({
  /** Tokens a chain may generate; default: what the context leaves, at most LENGTH_DEFAULT_MAX. */
  length: integer(1, LIMITS.LENGTH_MAX).optional(),
  width: integer(1, LIMITS.WIDTH_MAX).optional(),
  /** One per chain, instead of `length`. */
  lengths: list(integer(1, LIMITS.LENGTH_MAX), LIMITS.WIDTH_MAX).optional(),
  /** Chooses the variant. */
  compression_ratio: real(1, LIMITS.COMPRESSION_RATIO_MAX).optional(),
  /** Mean over (layer, KV head), summed over chains; prefill apart. */
  kv_read_budget: integer(1, LIMITS.KV_READ_BUDGET_MAX).optional(),
  deadline_ms: integer(1, LIMITS.DEADLINE_MS_MAX).optional(),
});

const marker = text(LIMITS.MARKER_CHARS_MAX);

const answerSchema = z.discriminatedUnion('rule', [
  z.strictObject({ rule: z.enum(['auto', 'boxed', 'last_number', 'choice', 'exact']) }),
  z.strictObject({ rule: z.literal('after'), marker }),
  z.strictObject({
    rule: z.literal('pattern'),
    pattern: z.custom<string>((v) => typeof v === 'string', { error: 'must be text' }).superRefine((pattern, context) => {
      const problem = typeof pattern === 'string' ? patternProblem(pattern) : null;
      if (problem !== null) context.addIssue({ code: 'custom', message: problem });
    }),
  }),
], { error: 'must have a rule: auto, boxed, last_number, choice, exact, after or pattern' });

/** What the schemas may be: grammar.ts. */
const formatSchema = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('json_object') }),
  z.strictObject({ kind: z.literal('json_schema'), schema: jsonObject() }),
], { error: 'must be json_object or json_schema' });

const functionName = rule<string>(`must be 1 to ${LIMITS.TOOL_NAME_CHARS_MAX} letters, digits, "_" or "-"`, isFunctionName);

const toolSchema = z.strictObject({
  type: rule<'function'>('must be function: no other tool is supported', (v) => v === 'function'),
  function: z.strictObject({
    name: functionName,
    description: anyText().optional(),
    /** A JSON schema. */
    parameters: rule<Record<string, unknown>>(`must be a JSON object, at most ${LIMITS.TOOL_DEPTH_MAX} deep`, (v) => isJsonObject(v) && isWithin(v, LIMITS.TOOL_DEPTH_MAX)).optional(),
    strict: bool().optional(),
  }),
});

const toolCallSchema = z.strictObject({
  id: text(256).optional(),
  type: choice('function').optional(),
  function: z.strictObject({
    name: functionName,
    arguments: rule<string | Record<string, unknown>>('must be text or a JSON object', (v) => typeof v === 'string' || isJsonObject(v)),
  }),
});

const messageSchema = z.strictObject({
  role: text(64),
  content: anyText(),
  /** What an assistant thought in an earlier turn; most templates leave it out. */
  reasoning_content: anyText().optional(),
  tool_calls: list(toolCallSchema, LIMITS.TOOLS_MAX).optional(),
  tool_call_id: text(256).optional(),
  name: text(256).optional(),
});

const jobSpecSchema = z.strictObject({
  /** `countdown`, `countdown@cr8` or a path. */
  model: text(4_096),
  variant: text(64).optional(),
  prompt: text(LIMITS.PROMPT_BYTES_MAX).optional(),
  messages: list(messageSchema, LIMITS.MESSAGES_MAX).optional(),
  /** Text or token ids that are gone on with as they are: no chat template. */
  raw_prompt: rule<string | readonly number[]>(`must be text of 1 to ${LIMITS.PROMPT_BYTES_MAX} bytes or a list of 1 to ${LIMITS.LENGTH_MAX} token ids`, isRawPrompt).optional(),
  /** A system turn before the messages, which a conversation that goes on does not inherit. */
  instructions: text(LIMITS.PROMPT_BYTES_MAX).optional(),
  sampling: samplingSchema.optional(),
  /** 64 bits: a bigint, or an integer that a double holds exactly. */
  seed: rule<bigint | number>(`must be an integer from 0 to ${LIMITS.SEED_MAX} (above 2^53 as a bigint)`, (v) =>
    typeof v === 'bigint' ? v >= 0n && v <= LIMITS.SEED_MAX : Number.isSafeInteger(v) && (v as number) >= 0).optional(),
  budget: budgetSchema.optional(),
  /** Among so many workers its chains are divided (docs/QUEUE.md); a KV-read budget is then each chain's equal share. Default: one has them all. */
  shards: integer(1, LIMITS.SHARDS_MAX).optional(),
  stop: list(text(LIMITS.STOP_BYTES_MAX), LIMITS.STOP_MAX).optional(),
  vote: choice('majority', 'first', 'verifier', 'none').optional(),
  early_stop: bool().optional(),
  answer: answerSchema.optional(),
  /** Default: the card's. */
  verifier: text(64).optional(),
  /** What every chain writes, after what it thinks. Default: any text. */
  format: formatSchema.optional(),
  /** Log-probability of each token, and of so many of the likeliest in its place. Default: none are kept. */
  logprobs: integer(0, LIMITS.TOP_LOGPROBS_MAX).optional(),
  /** null: the model does not think. */
  thinking: z.strictObject({ open: marker, close: marker }).nullable().optional(),
  /** What the chat template is told. Default of `enable_thinking`: the template's own. */
  enable_thinking: bool().optional(),
  /** Functions that the model may call. */
  tools: list(toolSchema, LIMITS.TOOLS_MAX).optional(),
  /** Default: auto, the model decides. `none`: it is not told of tools. `required`: some call; with a name: that one. */
  tool_choice: rule<ToolChoice>('must be auto, none, required or {"name": …}', isToolChoice).optional(),
  /** false: one call at most. Default: true. */
  parallel_tool_calls: bool().optional(),
  documents: list(jsonObject(), LIMITS.TOOLS_MAX).optional(),
  /** The day it is for the template: without one it has no clock, so that a job is a function of its spec. */
  date: rule<string>('must be a date like 2024-07-26 or 2024-07-26T14:30:05', (v) => typeof v === 'string' && parseDate(v) !== null).optional(),
  /** Whatever else the template knows: `date_string`, `builtin_tools`, `thinking_budget`. */
  template_variables: jsonObject().optional(),
  /** `batch`: nobody waits for it, so that it runs only while nothing interactive waits. Default: interactive. */
  priority: choice('interactive', 'batch').optional(),
  /** How long it may wait for its first worker; after that it is `expired`. Default: as long as it takes. */
  wait_ms_max: integer(1, LIMITS.WAIT_MS_MAX).optional(),
  backend: choice('cpu', 'reference').optional(),
  /** Default: f32 for F32 weights, else bf16. */
  kv: choice('f32', 'bf16').optional(),
  threads: integer(1, LIMITS.THREADS_MAX).optional(),
  page_slots: integer(1, LIMITS.PAGE_SLOTS_MAX).optional(),
  /** In place of the model's own: dense, dms, kvzap or a baseline. The native engine knows its options. */
  policy: text(64).optional(),
  policy_options: z.record(text(64), text(4_096), { error: 'must be an object of texts' }).optional(),
  /** Of the tokens that leave the window, the part expected to stay, for the quote. Default: the card's, as trained, or 1. */
  kept_fraction: real(0, 1, true).optional(),
  /** The caller's own words about the job, kept and given back; they change nothing, but a job with others is another. */
  metadata: z.record(z.string().max(LIMITS.METADATA_KEY_CHARS_MAX), z.string().max(LIMITS.METADATA_VALUE_CHARS_MAX), {
    error: `must have texts of at most ${LIMITS.METADATA_VALUE_CHARS_MAX} characters`,
  }).optional(),
  /** For whom the caller asked. */
  user: text(LIMITS.USER_BYTES_MAX).optional(),
  /** What an API repeats of a request although it says nothing to the engine; as metadata, but for the API to read. */
  repeated: jsonObject().optional(),
});

export type ToolChoice = 'auto' | 'none' | 'required' | { readonly name: string };

export type JobSpec = z.infer<typeof jobSpecSchema>;

const JSON_FIELDS = [
  ['tools', LIMITS.TEMPLATE_BYTES_MAX], ['documents', LIMITS.TEMPLATE_BYTES_MAX], ['template_variables', LIMITS.TEMPLATE_BYTES_MAX], ['repeated', LIMITS.REPEATED_BYTES_MAX],
] as const;

/**
 * @example parseSpec({ model: 'countdown', prompt: '4 20 8 13 target 59', budget: { width: 8 } })
 * @throws EngineError ERR_OPTION: one sentence with the field, the range and what was given.
 */
export function parseSpec(input: unknown): JobSpec {
  if (typeof input === 'object' && input !== null && whole.has(input)) return input as JobSpec;
  const parsed = jobSpecSchema.safeParse(input);
  if (!parsed.success) throw refusal(parsed.error.issues[0], input);
  const spec = parsed.data;
  if ([spec.prompt, spec.messages, spec.raw_prompt].filter((given) => given !== undefined).length !== 1) throw option('exactly one of prompt, messages and raw_prompt must be given');
  if (spec.instructions !== undefined && spec.messages === undefined) throw option('instructions must come with messages');
  if (Object.keys(spec.metadata ?? {}).length > LIMITS.METADATA_MAX) throw option(`metadata must have at most ${LIMITS.METADATA_MAX} pairs`);
  if (spec.messages?.length === 0) throw option('messages must have 1 to ' + `${LIMITS.MESSAGES_MAX} entries; got 0`);
  const messageBytes = (spec.messages ?? []).reduce((sum, { content, reasoning_content, tool_calls }) =>
    sum + utf8Bytes(content) + utf8Bytes(reasoning_content ?? '') + (jsonBytes(tool_calls ?? '') ?? 0), utf8Bytes(spec.instructions ?? ''));
  if (messageBytes > LIMITS.PROMPT_BYTES_MAX) throw option(`messages must have at most ${LIMITS.PROMPT_BYTES_MAX} bytes; got ${messageBytes}`);
  for (const [field, bytesMax] of JSON_FIELDS) {
    const bytes = jsonBytes(spec[field] ?? null) ?? 0;
    if (bytes > bytesMax) throw option(`${field} must have at most ${bytesMax} bytes as JSON; got ${bytes}`);
  }
  checkTools(spec);
  const format = formatOf(spec);
  if (format !== null) checkFormat(format);
  const { length, lengths, width } = spec.budget ?? {};
  if (lengths !== undefined) {
    if (length !== undefined) throw option('budget.length and budget.lengths must not both be given');
    const want = width ?? Math.max(1, lengths.length);
    if (lengths.length !== want) throw option(`budget.lengths must have one entry for each of ${want} chains; got ${lengths.length}`);
  }
  const chains = lengths?.length ?? width ?? LIMITS.WIDTH_DEFAULT;
  if (spec.shards !== undefined && spec.shards > chains) throw option(`shards must be at most ${chains}, one for each chain; got ${spec.shards}`);
  if (Object.keys(spec.policy_options ?? {}).length > LIMITS.POLICY_OPTIONS_MAX) throw option(`policy_options must have at most ${LIMITS.POLICY_OPTIONS_MAX} entries`);
  if (spec.model.includes('@') && spec.variant !== undefined) throw option(`variant must not be given twice; got ${show(spec.model)} and ${show(spec.variant)}`);
  whole.add(spec);
  return spec;
}

/** What has been parsed here: on its way to a job several ask, and nobody changes one. */
const whole = new WeakSet<object>();

function checkTools({ tools = [], tool_choice: toolChoice, parallel_tool_calls: parallel }: JobSpec): void {
  const names = tools.map((tool) => tool.function.name);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) throw option(`tools must have different names; got ${show(twice)} and ${show(twice)}`);
  if (names.length === 0 && toolChoice !== undefined && toolChoice !== 'none') throw option('tool_choice must be given with tools');
  if (names.length === 0 && parallel !== undefined) throw option('parallel_tool_calls must be given with tools');
  if (typeof toolChoice === 'object' && !names.includes(toolChoice.name)) throw option(`tool_choice must name one of tools; got ${show(toolChoice.name)}`);
}

/** What a spec calls its model, as the registry reads it. */
export function modelName(spec: Pick<JobSpec, 'model' | 'variant'>): string {
  return spec.variant === undefined ? spec.model : `${spec.model}@${spec.variant}`;
}

/** What the native engine is told over the model's own policy, in one order. */
export function policyOverrides({ policy, policy_options }: Pick<JobSpec, 'policy' | 'policy_options'>): readonly (readonly [string, string])[] {
  const options = Object.entries(policy_options ?? {}).sort(([a], [b]) => (a < b ? -1 : 1));
  return policy === undefined ? options : [['policy', policy], ...options];
}

export type SamplingSpec = z.infer<typeof samplingSchema>;

/**
 * The sampling defaults of a model's generation_config.json; keys that are not ours are skipped, `do_sample: false` means greedy.
 * @throws EngineError ERR_MODEL_CONFIG
 */
export function parseGenerationConfig(json: string, where: string): SamplingSpec {
  let config: Record<string, unknown>;
  try {
    config = z.record(z.string(), z.unknown()).parse(JSON.parse(json));
  } catch (cause) {
    throw new EngineError('ERR_MODEL_CONFIG', `${where} is not a JSON object.`, { cause });
  }
  const ours = Object.keys(samplingSchema.shape).filter((key) => key !== 'logit_bias' && config[key] !== undefined && config[key] !== null);
  const parsed = samplingSchema.safeParse(Object.fromEntries(ours.map((key) => [key, config[key]])));
  if (!parsed.success) throw new EngineError('ERR_MODEL_CONFIG', `${where}: ${refusal(parsed.error.issues[0], config).message}`);
  return config.do_sample === false ? { ...parsed.data, temperature: 0 } : parsed.data;
}

function refusal(issue: z.core.$ZodIssue | undefined, input: unknown): EngineError {
  if (issue === undefined) return option('the spec is invalid');
  const path = issue.path.map(String).join('.') || 'spec';
  const given = issue.path.reduce<unknown>((value, key) => (value as Record<PropertyKey, unknown> | undefined)?.[key], input);
  if (issue.code === 'unrecognized_keys') {
    return option(`${path === 'spec' ? '' : `${path}.`}${issue.keys[0]?.slice(0, 64)} is not an option`);
  }
  const missing = issue.code === 'invalid_type' && issue.expected === 'object' ? 'must be an object' : issue.message;
  return option(`${path} ${missing}; got ${show(given)}`);
}

function isJsonObject(value: unknown): boolean {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && jsonBytes(value) !== null;
}

/** Level by level: nothing calls itself. */
function isWithin(value: unknown, depth: number): boolean {
  let level: unknown[] = [value];
  for (let at = 0; level.length > 0; at++) {
    if (at > depth) return false;
    level = level.flatMap((item) => (typeof item === 'object' && item !== null ? Object.values(item) : []));
  }
  return true;
}

function isFunctionName(value: unknown): boolean {
  return typeof value === 'string' && value.length <= LIMITS.TOOL_NAME_CHARS_MAX && /^[A-Za-z0-9_-]+$/.test(value);
}

function isToolChoice(value: unknown): boolean {
  if (value === 'auto' || value === 'none' || value === 'required') return true;
  return typeof value === 'object' && value !== null && Object.keys(value).join() === 'name' && isFunctionName((value as { name: unknown }).name);
}

/** null: not JSON (a cycle, a bigint, a function). */
function jsonBytes(value: unknown): number | null {
  try {
    const json = JSON.stringify(value) as string | undefined;
    return json === undefined ? null : utf8Bytes(json);
  } catch {
    return null;
  }
}

function option(sentence: string): EngineError {
  return new EngineError('ERR_OPTION', `${sentence}.`);
}

function show(value: unknown): string {
  if (typeof value === 'bigint') return `${value}`;
  if (typeof value === 'number') return String(value);
  if (value === undefined) return 'nothing';
  if (typeof value === 'string') return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value);
  if (Array.isArray(value)) return `a list of ${value.length}`;
  return value === null ? 'null' : typeof value === 'object' ? 'an object' : String(value);
}
