/** Saving, restoring, reading journals, identity: what an abort does to each, who may call them when, and what closing leaves. */
import { describe, expect, test, vi } from 'vitest';

import { decodeJournals, type NativeEngine, type NativeRun, type RestoreOptions, type SavedObject, type SaveOptions } from '../../engine/runtime/native.ts';
import { bundledModel, expectCode, open, runOptions, tinyModel } from '../helpers/engine.ts';

const CR4 = bundledModel('cr4');
const OPEN_SEAL = { digestKey: null, dataKey: null, context: 'tenant\0job' };
const DELTA: SaveOptions = { ...OPEN_SEAL, delta: true, epoch: 1, n: 0, codec: 'raw' };
const JOB = runOptions({ checkpointed: true, width: 2 });
/** Takes the reference backend seconds: many slices of the native task. */
const LONG = runOptions({ width: 4, length: 300 });

describe('an abort before the call', () => {
  test('starts none of them', async () => {
    using engine = await open(CR4);
    using run = await prefilled(engine);
    const { objects } = await run.save(DELTA);
    const aborted = AbortSignal.abort();
    await expectCode('ERR_CANCELLED', () => engine.identity(aborted));
    await expectCode('ERR_CANCELLED', () => run.save(DELTA, aborted));
    await expectCode('ERR_CANCELLED', () => engine.restoreRun(restoring(objects), aborted));
    await expectCode('ERR_CANCELLED', () => journals(engine, objects, aborted));
  });
});

describe('an abort of a save that waits for its turn', () => {
  test('saves nothing: the next save holds all that it would have held', async () => {
    using engine = await open(tinyModel('tiny_qwen3_dms'), { backend: 'reference' });
    using golden = await prefilled(engine);
    using run = await prefilled(engine);
    using busy = engine.createRun(LONG);
    await busy.prefill();
    const step = busy.step(1000);
    const controller = new AbortController();
    const save = run.save(DELTA, controller.signal);
    controller.abort();
    await expectCode('ERR_CANCELLED', () => save);
    busy.close();
    await expectCode('ERR_CANCELLED', () => step);
    const [mine, theirs] = [await run.save(DELTA), await golden.save(DELTA)];
    expect(mine.objects.map(kinds)).toEqual(theirs.objects.map(kinds));
    expect((await journals(engine, mine.objects)).report.chains).toHaveLength(2);
  });
});

describe('an abort of the identity', () => {
  test('settles a call that waits, and the next one is answered', async () => {
    using engine = await open(tinyModel('tiny_qwen3'), { backend: 'reference' });
    const golden = await engine.identity();
    using busy = engine.createRun(LONG);
    await busy.prefill();
    const step = busy.step(1000);
    const controller = new AbortController();
    const identity = engine.identity(controller.signal);
    controller.abort();
    await expectCode('ERR_CANCELLED', () => identity);
    busy.close();
    await expectCode('ERR_CANCELLED', () => step);
    expect(await engine.identity()).toEqual(golden);
  });

  test('is not needed where another call of the engine is in flight: that is ERR_BUSY', async () => {
    using engine = await open(CR4);
    const identity = engine.identity();
    await expectCode('ERR_BUSY', () => engine.identity());
    await expectCode('ERR_BUSY', () => engine.forward({ ids: Int32Array.of(1), promptLen: 1, chunk: 1 }));
    await identity;
  });
});

describe('an abort of a restore', () => {
  test('settles at once and leaves no KV behind', async () => {
    using engine = await open(CR4);
    let objects: readonly SavedObject[];
    {
      using run = await prefilled(engine);
      await run.step(20);
      ({ objects } = await run.save(DELTA));
    }
    const controller = new AbortController();
    const restore = engine.restoreRun(restoring(objects), controller.signal);
    controller.abort();
    await expectCode('ERR_CANCELLED', () => restore);
    // What waits behind it is answered when it has gone.
    await engine.identity();
    await vi.waitFor(() => expect(engine.memory().kvAllocatedBytes).toBe(0), { timeout: 20_000 });
    using again = await engine.restoreRun(restoring(objects));
    await again.prefill();
    expect(again.report().step).toBe(20);
  });
});

describe('memory prepared for a restore', () => {
  const NEED = { segmentBytes: 1 << 20, caches: 2, tokens: 400, memoryLimitBytes: null };

  test('is held while objects are read; a restore takes what it needs, gives back the rest and goes on the same', async () => {
    using engine = await open(CR4, { pageSlots: 4 });
    const job = runOptions({ checkpointed: true, width: 2, length: 200 });
    const held = () => engine.memory().kvAllocatedBytes;
    let objects: readonly SavedObject[];
    {
      using run = engine.createRun(job);
      await run.prefill();
      await run.step(150);
      ({ objects } = await run.save(DELTA));
    }
    const options = { ...restoring(objects), run: job };
    using golden = await engine.restoreRun(options);
    const alone = held();
    using memory = engine.prepareRestore(NEED);
    await memory.done;
    expect(held()).toBeGreaterThan(2 * alone);
    using restored = await engine.restoreRun(options, undefined, memory);
    expect(held()).toBe(2 * alone);
    for (const run of [golden, restored]) {
      await run.prefill();
      await run.step(20);
    }
    expect(restored.report()).toEqual(golden.report());
    expect(restored.report().caughtUp).toBe(0);
  });

  test('goes back when it is closed, prepared or not, and is none of a limit that it does not fit in', async () => {
    using engine = await open(CR4);
    for (const wait of [true, false]) {
      const memory = engine.prepareRestore(NEED);
      if (wait) await memory.done;
      memory.close();
      memory.close();
      await memory.done;
      expect(engine.memory().kvAllocatedBytes).toBe(0);
    }
    using above = engine.prepareRestore({ ...NEED, memoryLimitBytes: 1000 });
    await above.done;
    expect(engine.memory().kvAllocatedBytes).toBe(0);
  });

  test("another engine's or closed is refused, and outlives its engine", async () => {
    using engine = await open(CR4);
    const other = await open(CR4);
    using run = await prefilled(engine);
    const options = restoring((await run.save(DELTA)).objects);
    using theirs = other.prepareRestore(NEED);
    other.close();
    await theirs.done;
    await expectCode('ERR_OPTION', () => engine.restoreRun(options, undefined, theirs));
    theirs.close();
    await expectCode('ERR_DISPOSED', () => engine.restoreRun(options, undefined, theirs));
    await expectCode('ERR_DISPOSED', () => other.prepareRestore(NEED));
  });
});

describe('an abort of reading journals', () => {
  test('settles at once', async () => {
    using engine = await open(CR4);
    using run = await prefilled(engine);
    const { objects } = await run.save(DELTA);
    const { layoutId } = await engine.identity();
    const controller = new AbortController();
    const call = decodeJournals({ ...sources(objects.filter(isJournal)), layoutId, vocabSize: engine.info.vocabSize }, controller.signal);
    controller.abort();
    await expectCode('ERR_CANCELLED', () => call);
  });
});

describe('the identity of an engine', () => {
  test('is the same on every backend and number of threads, and another for other weights', async () => {
    const of = async (model: string, changes = {}) => {
      using engine = await open(tinyModel(model), changes);
      return await engine.identity();
    };
    const golden = await of('tiny_qwen3');
    expect(await of('tiny_qwen3', { threads: 3 })).toEqual(golden);
    expect(await of('tiny_qwen3', { backend: 'reference' })).toEqual(golden);
    expect(await of('tiny_qwen3_sharded')).toEqual(golden);
    expect((await of('tiny_qwen3_dms_separate')).weightsDigest).not.toBe(golden.weightsDigest);
    expect((await of('tiny_qwen3', { pageSlots: 32 })).layoutId).not.toBe(golden.layoutId);
    expect((await of('tiny_qwen3', { kv: 'bf16' })).layoutId).not.toBe(golden.layoutId);
  });

  test('ends with the engine', async () => {
    const engine = await open(tinyModel('tiny_qwen3'), { backend: 'reference' });
    const busy = engine.createRun(LONG);
    await busy.prefill();
    const step = busy.step(1000);
    const identity = engine.identity();
    engine.close();
    await expectCode('ERR_CANCELLED', () => identity);
    busy.close();
    await expectCode('ERR_CANCELLED', () => step);
    await expectCode('ERR_DISPOSED', () => engine.identity());
  });
});

async function prefilled(engine: NativeEngine): Promise<NativeRun> {
  const run = engine.createRun(JOB);
  await run.prefill();
  return run;
}

function kinds({ kind, chain, generated, bytes }: SavedObject): unknown {
  return { kind, chain, generated, bytes: bytes.byteLength };
}

const isJournal = ({ kind }: SavedObject): boolean => kind === 'journal';

const sources = (objects: readonly SavedObject[]) => ({
  objects: objects.map(({ bytes, digest }) => ({ chunks: [bytes], bytes: bytes.byteLength, digest, seal: 0 })),
  seals: [OPEN_SEAL],
  checkDigests: true,
});

async function journals(engine: NativeEngine, objects: readonly SavedObject[], signal?: AbortSignal) {
  const { layoutId } = await engine.identity();
  return decodeJournals({ ...sources(objects.filter(isJournal)), layoutId, vocabSize: engine.info.vocabSize }, signal);
}

/** All chains as the objects have them. */
function restoring(objects: readonly SavedObject[]): RestoreOptions {
  const indices = (is: (object: SavedObject) => boolean) => objects.flatMap((object, i) => (is(object) ? [i] : []));
  return {
    ...sources(objects),
    run: JOB,
    replay: false,
    ownJournal: true,
    chains: [0, 1].map((source) => ({
      source,
      tokens: -1,
      reopen: false,
      segments: indices(({ kind, chain }) => kind === 'segment' && (chain === source || chain === -1)),
      tail: indices(({ kind, chain }) => kind === 'tail' && chain === source)[0] ?? null,
    })),
    promptSegments: indices(({ kind, chain }) => kind === 'segment' && chain === -1),
    promptTail: indices(({ kind, chain }) => kind === 'tail' && chain === -1)[0] ?? null,
    prefix: null,
    journals: indices(isJournal),
  };
}
