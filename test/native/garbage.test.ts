/**
 * Nothing that JS can pass to the boundary ends the process: every wrong DTO is an EngineError with a code of the table, and
 * `undefined` is named with the path of its field.
 */
import { createRequire } from 'node:module';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { EngineError, ERROR_CODES } from '../../engine/core/errors.ts';
import { inspectModel, openEngine, type NativeEngine } from '../../engine/runtime/native.ts';
import { engineOptions, expectCode, open, ROOT, runOptions, tinyModel } from '../helpers/engine.ts';

const MODEL = tinyModel('tiny_qwen3_dms');
const FORWARD = { ids: Int32Array.of(1, 2, 3), promptLen: 2, chunk: 1 };

const detached = new Int32Array(8);
structuredClone(detached, { transfer: [detached.buffer] });

const GARBAGE: readonly unknown[] = [
  undefined, null, true, NaN, Infinity, -Infinity, -1, 0, -0, 0.5, 1e308, 2 ** 31, 2 ** 32, 2 ** 53, -(2 ** 31) - 1,
  '', 'x', 'nul\0byte', '\ud800', 'long '.repeat(50_000), Symbol('s'), 0n, -1n, 2n ** 64n, 2n ** 5000n, () => 1, new Date(), /x/, new Map(),
  {}, [], [undefined], [[]], [[1]], [[1, 2, 3]], [['a']], [['a', 1]], [[NaN, NaN]], [[-1, 0]], [[1e12, 0]], new Array(5), new Array(2 ** 32 - 1),
  new Int32Array(0), new Int32Array([-1]), new Int32Array([2 ** 30]), new Int32Array(300).fill(1), new Float64Array(3), new Uint8Array(3), new BigInt64Array(2), detached,
  new Int32Array(new SharedArrayBuffer(16)), new DataView(new ArrayBuffer(8)), new ArrayBuffer(8), { length: 2 ** 40 },
  { bytes: new Uint8Array(3), offsets: new Uint32Array([0, 2, 1]) }, { bytes: new Uint8Array(3), offsets: new Uint32Array([0, 4_000_000_000]) },
  { bytes: new Uint8Array(0), offsets: new Uint32Array(0) }, Object.create(null),
  new Proxy({}, { get: () => { throw new RangeError('trap'); } }), new Proxy([], { get: () => 7 }), new Proxy(new Int32Array(4), {}),
];

let engine: NativeEngine;
beforeAll(async () => {
  engine = await open(MODEL);
});
afterAll(() => engine.close());

async function survives(call: () => unknown): Promise<void> {
  try {
    const result = await call();
    if (typeof result === 'object' && result !== null && 'close' in result) (result as NativeEngine).close();
  } catch (error) {
    expect(error).toBeInstanceOf(EngineError);
    expect(Object.keys(ERROR_CODES)).toContain((error as EngineError).code);
    expect((error as EngineError).message.length).toBeLessThan(2000);
  }
}

/** `base` with one field after the other, at any depth, replaced by each piece of garbage. */
function* mutations(base: object): Generator<{ readonly path: string; readonly value: unknown; readonly dto: never }> {
  for (const [key, own] of Object.entries(base)) {
    for (const value of GARBAGE) yield { path: key, value, dto: { ...base, [key]: value } as never };
    if (own === null || typeof own !== 'object' || Array.isArray(own) || ArrayBuffer.isView(own)) continue;
    for (const inner of mutations(own as object)) yield { ...inner, path: `${key}.${inner.path}`, dto: { ...base, [key]: inner.dto } as never };
  }
}

const CALLS: readonly { readonly name: string; readonly base: object; readonly call: (dto: never) => unknown }[] = [
  { name: 'openEngine.options', base: engineOptions(MODEL), call: (dto) => openEngine(dto) },
  { name: 'createRun.options', base: runOptions({ width: 2, pieces: { bytes: new Uint8Array(0), offsets: new Uint32Array(129) } }), call: (dto) => engine.createRun(dto) },
  { name: 'forward.options', base: FORWARD, call: (dto) => engine.forward(dto) },
];

describe.each(CALLS)('$name', ({ name, base, call }) => {
  test('with any field replaced by garbage succeeds or throws a coded error', async () => {
    for (const { dto } of mutations(base)) await survives(() => call(dto));
  });

  test('with a field undefined or missing is ERR_INTERNAL that names the path', async () => {
    for (const { path: field, value, dto } of mutations(base)) {
      if (value !== undefined) continue;
      const error = await expectCode('ERR_INTERNAL', () => call(dto));
      expect(error.message).toContain(`${name}.${field} is undefined`);
    }
  });

  test('with the whole DTO replaced by garbage throws a coded error', async () => {
    for (const value of GARBAGE) await expect(Promise.resolve().then(() => call(value as never)), String(typeof value)).rejects.toBeInstanceOf(EngineError);
  });
});

test('other arguments that are garbage throw a coded error', async () => {
  using run = engine.createRun(runOptions());
  await run.prefill();
  for (const value of GARBAGE) {
    await survives(() => inspectModel(value as never, []));
    await survives(() => inspectModel(MODEL, value as never));
    await survives(() => run.end(value as never));
    await survives(() => engine.prepareRestore(value as never));
    if (typeof value !== 'number') await survives(() => run.step(value as never));
  }
  for (const { dto } of mutations({ segmentBytes: 4096, caches: 1, tokens: 100, memoryLimitBytes: 1 << 20 })) await survives(() => engine.prepareRestore(dto));
  for (const steps of [NaN, 0, -1, 0.5, 2 ** 31, Infinity]) await expectCode('ERR_OPTION', () => run.step(steps));
});

test('a number out of range is ERR_OPTION and says the range', async () => {
  const error = await expectCode('ERR_OPTION', () => openEngine({ ...engineOptions(MODEL), threads: 0 }));
  expect(error.message).toBe('openEngine.options.threads must be an integer from 1 to 256; got 0.');
});

test('a seed takes all 64 bits and no more', async () => {
  engine.createRun(runOptions({ seed: 2n ** 64n - 1n })).close();
  await expectCode('ERR_OPTION', () => engine.createRun(runOptions({ seed: 2n ** 64n })));
  await expectCode('ERR_OPTION', () => engine.createRun(runOptions({ seed: -1n })));
});

test('a getter that closes the handle mid-call gets ERR_DISPOSED', async () => {
  const victim = await open(MODEL);
  const dto = { ...runOptions(), get prefillChunk(): number { victim.close(); return 8; } };
  await expectCode('ERR_DISPOSED', () => victim.createRun(dto));
});

test('a getter that throws is reported with its own message', async () => {
  const dto = { ...runOptions(), get width(): number { throw new TypeError('no width today'); } };
  const error = await expectCode('ERR_INTERNAL', () => engine.createRun(dto));
  expect(error.message).toBe('no width today');
});

describe('the raw addon', () => {
  type Raw = Record<string, (...args: unknown[]) => unknown>;
  const raw = createRequire(import.meta.url)(path.join(ROOT, 'build', 'native', 'ruminate.node')) as Raw;

  test('refuses every object that is not a handle of the right kind', async () => {
    const { handle } = (await raw['openEngine']!(engineOptions(MODEL))) as { handle: unknown };
    const run = raw['createRun']!(handle, runOptions());
    const onEngines = ['engineMemory', 'engineForward', 'engineCancel', 'createRun', 'engineClose'];
    const onRuns = ['runPrefill', 'runStep', 'runCancel', 'runEnd', 'runReport', 'runClose'];
    for (const name of onEngines) for (const wrong of [run, ...GARBAGE]) expect(() => raw[name]!(wrong, {}), name).toThrow('handle of the right kind');
    for (const name of onRuns) for (const wrong of [handle, ...GARBAGE]) expect(() => raw[name]!(wrong, {}), name).toThrow('handle of the right kind');
    for (const name of [...onEngines, ...onRuns]) expect(() => raw[name]!()).toThrow();
    raw['engineClose']!(handle);
  });

  test('does not trip over prototypes that throw', async () => {
    const trap = { configurable: true, set: () => { throw new RangeError('trap'); }, get(this: object) { if (Object.hasOwn(this, 'handle')) throw new RangeError('trap'); } };
    Object.defineProperty(Error.prototype, 'code', trap);
    Object.defineProperty(Object.prototype, 'then', trap);
    try {
      expect(() => raw['openEngine']!({})).toThrow(expect.objectContaining({ code: 'ERR_INTERNAL' }));
      await expect(raw['openEngine']!({ ...engineOptions(MODEL), directory: 'nowhere' })).rejects.toMatchObject({ code: 'ERR_MODEL_FILE' });
      await expect(raw['openEngine']!(engineOptions(MODEL))).rejects.toThrow('trap');
    } finally {
      Reflect.deleteProperty(Error.prototype, 'code');
      Reflect.deleteProperty(Object.prototype, 'then');
    }
  });

  test('does not care about `this` and cannot be constructed into anything that crashes', () => {
    expect(raw['nativeInfo']!.call(42)).toHaveProperty('numericsId');
    for (const construct of Object.values(raw)) {
      try {
        Reflect.construct(construct, []);
      } catch (error) {
        expect(error).toBeInstanceOf(Error);
      }
    }
  });
});
