/** `ruminate model inspect`: what a model directory is, what its KV costs, and how much of it fits this machine. Reads no weights. */
import { LIMITS } from '../engine/core/limits.ts';
import { cacheGeometry, cacheShape, chainBytes, defaultKvType, kvBytesPerToken, live } from '../engine/job/budget.ts';
import { availableMemory } from '../engine/job/memory.ts';
import { resolve } from '../engine/model/registry.ts';
import { inspectModel, type KvType, type ModelInfo } from '../engine/runtime/native.ts';
import { bytes, count, plural, ratio, table, type Paint } from './text.ts';

export interface Inspection {
  readonly model: string;
  readonly directory: string;
  readonly variant: string | null;
  readonly info: ModelInfo;
  readonly kv: {
    readonly type: KvType;
    /** One token in every layer and KV head, keys and values. */
    readonly bytes_per_token: number;
    /** Share of the tokens past the window that stay: measured (card) or as trained for. */
    readonly kept_fraction: number;
    readonly kept_fraction_from: 'card' | 'config' | 'dense' | 'unmeasured';
  };
  readonly lengths: readonly {
    readonly length: number;
    readonly expected_live_tokens: number;
    readonly expected_bytes: number;
    /** When nothing is evicted. */
    readonly worst_bytes: number;
    /** Chains of this length in the free memory, weights taken off: by what they allocate, not by what is live. */
    readonly chains_expected: number;
    readonly chains_worst: number;
  }[];
  readonly machine: { readonly available_bytes: number };
}

export interface InspectOptions {
  readonly lengths: readonly number[];
  readonly kv: KvType | null;
  /** Over the directory's policy: the card's figures are not about it then. */
  readonly overrides: readonly (readonly [string, string])[];
}

/** @example const { kv } = await inspect('countdown@cr8', { lengths: [512], kv: null, overrides: [] }); */
export async function inspect(model: string, { lengths, kv, overrides }: InspectOptions): Promise<Inspection> {
  const resolved = resolve(model);
  const info = await inspectModel(resolved.directory, overrides);
  const type = kv ?? defaultKvType(info);
  const bytesPerToken = kvBytesPerToken(info, type);
  const measured = overrides.length > 0 ? null : (resolved.variantCard?.figures?.kept_fraction ?? null);
  const shape = cacheShape(info, measured);
  const geometry = cacheGeometry(info, type, LIMITS.PAGE_SLOTS_DEFAULT);
  const dense = info.policy.name === 'dense' || info.policy.disableEviction;
  const available = availableMemory();
  const room = Math.max(0, available - info.fileBytes);
  return {
    model: resolved.variant === null ? resolved.name : `${resolved.name}@${resolved.variant}`,
    directory: resolved.directory,
    variant: resolved.variant,
    info,
    kv: {
      type,
      bytes_per_token: bytesPerToken,
      kept_fraction: shape.keptFraction,
      kept_fraction_from: dense ? 'dense' : measured !== null ? 'card' : info.policy.name.startsWith('dms_') ? 'config' : 'unmeasured',
    },
    lengths: (lengths.length > 0 ? lengths : defaultLengths(info)).map((length) => {
      const liveTokens = live(length, shape);
      const expected = Math.ceil(liveTokens * bytesPerToken);
      const worst = length * bytesPerToken;
      return {
        length,
        expected_live_tokens: Math.round(liveTokens * 10) / 10,
        expected_bytes: expected,
        worst_bytes: worst,
        chains_expected: Math.floor(room / chainBytes(length, shape, geometry, info.vocabSize)),
        chains_worst: Math.floor(room / chainBytes(length, { ...shape, keptFraction: 1 }, geometry, info.vocabSize)),
      };
    }),
    machine: { available_bytes: available },
  };
}

function defaultLengths(info: ModelInfo): number[] {
  const most = info.maxPositions;
  return [...new Set([most / 8, most / 4, most / 2, most].map((length) => Math.max(1, Math.floor(length))))];
}

/** @example process.stdout.write(inspectionText(await inspect('countdown', ...), paint)) */
export function inspectionText({ model, directory, info, kv, lengths, machine }: Inspection, paint: Paint): string {
  const { policy } = info;
  const from = { card: 'measured, from the model card', config: `as trained for: CR ${policy.targetCr}`, dense: 'no eviction', unmeasured: 'not measured' }[kv.kept_fraction_from];
  const rows: readonly [string, string][] = [
    ['model', paint.bold(model)],
    ['directory', directory],
    ['architecture', `${info.modelType}, ${plural(info.layers, 'layer')}, hidden ${info.hiddenSize}, vocabulary ${count(info.vocabSize)}`],
    ['attention', `${plural(info.heads, 'head')} over ${plural(info.kvHeads, 'KV head')} of ${info.headDim}, up to ${plural(info.maxPositions, 'position')}`],
    ['weights', `${count(info.parameters)} parameters, ${weightMix(info.weightBytes)}, ${bytes(info.fileBytes)}`],
    ['flavour', flavourOf(policy)],
    ['', paint.dim(policy.reason)],
    ['KV', `${bytes(kv.bytes_per_token)} a token (${kv.type})`],
    ['kept', `${(100 * kv.kept_fraction).toFixed(1)}% of tokens past the window (${from})`],
    ['machine', `${bytes(machine.available_bytes)} of memory free`],
  ];
  const width = Math.max(...rows.map(([name]) => name.length));
  const facts = rows.map(([name, value]) => `${paint.dim(name.padEnd(width))}  ${value}`).join('\n');
  const costs = table(
    [
      ['tokens', 'live KV tokens', 'compression', 'KV a chain', 'dense', 'chains that fit', 'dense'],
      ...lengths.map((row) => [
        count(row.length), row.expected_live_tokens.toFixed(1), ratio(row.length / row.expected_live_tokens), bytes(row.expected_bytes),
        bytes(row.worst_bytes), count(row.chains_expected), count(row.chains_worst),
      ]),
    ],
    paint,
  );
  return `${facts}\n\n${costs}\n`;
}

/**
 * Types by their share of the bytes, the largest first.
 * @example weightMix({ f32: 8, q4_k: 72, q6_k: 20 }) // q4_k 72%, q6_k 20%, f32 8%
 */
export function weightMix(weightBytes: ModelInfo['weightBytes']): string {
  const types = Object.entries(weightBytes).sort(([, a], [, b]) => b - a);
  const whole = types.reduce((sum, [, size]) => sum + size, 0);
  const share = (size: number) => (size / whole < 0.01 ? '<1%' : `${Math.round((100 * size) / whole)}%`);
  return types.length === 1 ? (types[0]?.[0] ?? '') : types.map(([type, size]) => `${type} ${share(size)}`).join(', ');
}

function flavourOf({ name, window, alphaPer, kvzap }: ModelInfo['policy']): string {
  if (kvzap === null) return name.startsWith('dms_') ? `${name}, window ${window}, alpha per ${alphaPer}` : name;
  return `kvzap (${kvzap.kind}), window ${window}, threshold ${kvzap.threshold}, prunes ${kvzap.decode ? 'prompt and generated tokens' : 'the prompt only'}`;
}
