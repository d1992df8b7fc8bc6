/** `ruminate model check`: whether a model directory is whole, and whether the fast backend agrees with the reference on it, bit for bit. */
import { EngineError } from '../engine/core/errors.ts';
import { templateIn } from '../engine/model/directory.ts';
import { loadTokenizer } from '../engine/model/gguf.ts';
import { resolve, type ResolvedModel } from '../engine/model/registry.ts';
import type { Tokenizer } from '../engine/model/tokenizer.ts';
import {
  inspectModel, nativeInfo, openEngine,
  type BackendName, type ForwardResult, type Isa, type ModelInfo, type NativeEngine,
} from '../engine/runtime/native.ts';
import { bytes, count, plural } from './text.ts';

export interface Check {
  readonly name: string;
  readonly passed: boolean;
  /** What was found, or the failure with its code. */
  readonly detail: string;
}

export interface CheckReport {
  readonly model: string;
  readonly directory: string | null;
  readonly passed: boolean;
  readonly checks: readonly Check[];
}

export interface CheckOptions {
  readonly threads: number;
  /** Tokens of the pass that is compared; null: enough to see evictions, fewer for large models. */
  readonly tokens: number | null;
  readonly onStart: (name: string) => void;
  readonly onEnd: (check: Check) => void;
  readonly signal: AbortSignal;
}

/** Runs every check that the ones before it leave possible. */
export async function checkModel(model: string, options: CheckOptions): Promise<CheckReport> {
  const checks: Check[] = [];
  const step = async <T>(name: string, work: () => Promise<readonly [T, string]> | readonly [T, string]): Promise<T | null> => {
    options.onStart(name);
    let check: Check;
    let value: T | null = null;
    try {
      const [result, detail] = await work();
      value = result;
      check = { name, passed: true, detail };
    } catch (error) {
      // Neither says anything about the model.
      if (error instanceof EngineError && (error.code === 'ERR_CANCELLED' || error.code === 'ERR_NATIVE_MISSING')) throw error;
      check = { name, passed: false, detail: error instanceof EngineError ? `${error.code}: ${error.message}` : String(error) };
    }
    checks.push(check);
    options.onEnd(check);
    return value;
  };

  const resolved = await step('model', () => {
    const found = resolve(model);
    return [found, found.directory];
  });
  if (resolved !== null) await checkDirectory(resolved, options, step);
  return { model, directory: resolved?.directory ?? null, passed: checks.every((check) => check.passed), checks };
}

type Step = <T>(name: string, work: () => Promise<readonly [T, string]> | readonly [T, string]) => Promise<T | null>;

async function checkDirectory({ directory }: ResolvedModel, options: CheckOptions, step: Step): Promise<void> {
  const info = await step('config and tensors', async () => {
    const found = await inspectModel(directory, []);
    return [found, `${found.modelType}, ${count(found.parameters)} parameters, ${bytes(found.fileBytes)}, ${found.policy.name}`];
  });
  if (info === null) return;
  const tokenizer = await step('tokenizer', async () => {
    const loaded = await loadTokenizer(directory);
    loaded.checkFits(info.vocabSize);
    return [loaded, `${plural(loaded.vocabSize, 'token')} for ${plural(info.vocabSize, 'embedding row')}`];
  });
  const ids = await step('chat template', () => promptIds(directory, tokenizer));
  const forced = teacherForced(ids ?? [], info, options.tokens);
  const expected = await step('weights', async () => {
    const result = await forward(directory, 'reference', null, forced, options);
    return [result, `finite; reference backend over ${plural(forced.length, 'token')}`];
  });
  if (expected === null) return;
  for (const isa of nativeInfo().isas) {
    await step(`cpu ${isa} = reference`, async () => {
      const actual = await forward(directory, 'cpu', isa, forced, options);
      const difference = compare(expected, actual);
      if (difference !== null) throw new EngineError('ERR_INTERNAL', `${difference} differs from the reference backend; please report this.`);
      return [actual, `logits, evictions and ${plural(actual.heads.flat().length, 'cache head')} are the same bytes`];
    });
  }
}

function promptIds(directory: string, tokenizer: Tokenizer | null): readonly [number[], string] {
  if (tokenizer === null) throw new EngineError('ERR_TEMPLATE', 'There is no tokenizer to render it with.');
  const template = templateIn(directory, tokenizer.config);
  if (template === null) return [tokenizer.encode('1 2 3', { addSpecial: true }), 'none: prompts are used as they are'];
  const text = template.render({
    messages: [{ role: 'user', content: '1 2 3' }],
    addGenerationPrompt: true,
    bosToken: tokenizer.bosToken,
    eosToken: tokenizer.eosToken,
  });
  const ids = tokenizer.encode(text, { addSpecial: false });
  return [ids, `renders; a question becomes ${plural(ids.length, 'token')}`];
}

/** The prompt, then ids spread over the vocabulary: enough of them that tokens leave the window and the policy decides. */
function teacherForced(prompt: readonly number[], info: ModelInfo, tokens: number | null): Int32Array {
  const small = info.parameters < 50_000_000;
  const wanted = tokens ?? (small ? Math.min(2 * info.policy.window + 64, 320) : 24);
  const length = Math.min(info.maxPositions, Math.max(2, wanted));
  return Int32Array.from({ length }, (_, i) => prompt[i] ?? (i * 40_503 + 12_345) % info.vocabSize);
}

async function forward(directory: string, backend: BackendName, isa: Isa | null, ids: Int32Array, options: CheckOptions): Promise<ForwardResult> {
  const engine: NativeEngine = await openEngine(
    { directory, overrides: [], backend, kv: null, pageSlots: 64, threads: options.threads, isa },
    options.signal,
  );
  try {
    return await engine.forward({ ids, promptLen: Math.ceil(ids.length / 2), chunk: 16 }, options.signal);
  } finally {
    engine.close();
  }
}

/** The first part that is not byte for byte the same, or null. */
function compare(expected: ForwardResult, actual: ForwardResult): string | null {
  if (!sameBytes(expected.logits, actual.logits)) return 'logits';
  if (!sameBytes(expected.liveCount, actual.liveCount)) return 'the number of live KV tokens';
  if ((expected.evictDecision === null) !== (actual.evictDecision === null)) return 'the eviction policy';
  if (expected.evictDecision && actual.evictDecision && !sameBytes(expected.evictDecision, actual.evictDecision)) return 'an eviction decision';
  if (expected.kvReadsAll !== actual.kvReadsAll || expected.kvReadsDecode !== actual.kvReadsDecode) return 'the count of KV reads';
  for (const [layer, heads] of expected.heads.entries()) {
    for (const [head, want] of heads.entries()) {
      const got = actual.heads[layer]?.[head];
      const same = got !== undefined && sameBytes(want.positions, got.positions) && sameBytes(want.k, got.k) && sameBytes(want.v, got.v);
      if (!same) return `the cache of layer ${layer}, head ${head}`;
    }
  }
  return null;
}

function sameBytes(a: ArrayBufferView, b: ArrayBufferView): boolean {
  return Buffer.compare(Buffer.from(a.buffer, a.byteOffset, a.byteLength), Buffer.from(b.buffer, b.byteOffset, b.byteLength)) === 0;
}
