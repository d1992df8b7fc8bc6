/** Saving and restoring across the boundary: who may when, what is refused, and what is left behind. */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { describe, expect, test } from 'vitest';

import { decodeJournals, type LoadedObject, type NativeEngine, type NativeRun, type RestoreOptions, type RunOptions, type SavedObject, type SaveOptions } from '../../engine/runtime/native.ts';
import { bundledModel, expectCode, open, runOptions } from '../helpers/engine.ts';

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;
const CR4 = bundledModel('cr4');
const SEAL = { digestKey: null, dataKey: null, context: '' };
const DELTA: SaveOptions = { ...SEAL, delta: true, epoch: 1, n: 0, codec: 'raw' };
const JOB: RunOptions = runOptions({ checkpointed: true, length: 40, width: 2 });

function loaded({ bytes, digest }: SavedObject): LoadedObject {
  return { chunks: [bytes.subarray(0, 100), bytes.subarray(100)], bytes: bytes.byteLength, digest, seal: 0 };
}

/** Goes on from the tails of these objects, which are in order of saving; `tails` false: computes everything again. */
function plan(saved: readonly SavedObject[], { tails = true, run = JOB }: { readonly tails?: boolean; readonly run?: RunOptions } = {}): RestoreOptions {
  const indices = (kind: string, chain: number) => saved.flatMap((object, i) => (object.kind === kind && object.chain === chain ? [i] : []));
  const prompt = tails ? indices('segment', -1) : [];
  return {
    run,
    objects: saved.map(loaded),
    seals: [SEAL],
    checkDigests: true,
    replay: false,
    ownJournal: true,
    chains: [0, 1].map((chain) => ({
      source: chain,
      tokens: -1,
      reopen: false,
      segments: tails ? [...prompt, ...indices('segment', chain)] : [],
      tail: tails ? indices('tail', chain).at(-1) ?? null : null,
    })),
    promptSegments: prompt,
    promptTail: tails ? indices('tail', -1).at(-1) ?? null : null,
    prefix: null,
    journals: indices('journal', -2),
  };
}

async function cut(engine: NativeEngine, steps = 12): Promise<readonly SavedObject[]> {
  using run = engine.createRun(JOB);
  await run.prefill();
  const first = await run.save(DELTA);
  await run.step(steps);
  const second = await run.save(DELTA);
  return [...first.objects, ...second.objects];
}

async function toTheEnd(run: NativeRun): Promise<unknown> {
  while (run.report().running > 0) await run.step(1000);
  const { caughtUp: _, ...report } = run.report();
  return report;
}

async function atOnce(): Promise<unknown> {
  using engine = await open(CR4);
  using run = engine.createRun(JOB);
  await run.prefill();
  return await toTheEnd(run);
}

describe('a checkpointed run', () => {
  test('goes on in another engine as if nothing had happened', async () => {
    using first = await open(CR4, { pageSlots: 4 });
    const saved = await cut(first);
    using second = await open(CR4, { pageSlots: 4, threads: 2 });
    for (const tails of [true, false]) {
      using run = await second.restoreRun(plan(saved, { tails }));
      await run.prefill();
      expect(run.report().caughtUp).toBe(tails ? 0 : 24);
      expect(await toTheEnd(run)).toEqual(await atOnce());
    }
  });

  test('says in its journals what its report says', async () => {
    using engine = await open(CR4);
    const saved = await cut(engine);
    const { layoutId } = await engine.identity();
    const journals = saved.filter(({ kind }) => kind === 'journal').map(loaded);
    const said = await decodeJournals({ objects: journals, seals: [SEAL], checkDigests: true, layoutId, vocabSize: engine.info.vocabSize });
    expect(said.chains).toEqual([0, 1]);
    expect(said.promptTokens).toBe(JOB.prompt.length);
    expect(said.report.step).toBe(12);
    using run = await engine.restoreRun(plan(saved));
    await run.prefill();
    expect(said.report.chains).toEqual(run.report().chains);
  });

  test('is busy while it saves, and cannot be saved while it steps', async () => {
    using engine = await open(CR4);
    using run = engine.createRun(JOB);
    await run.prefill();
    const saving = run.save(DELTA);
    await expectCode('ERR_BUSY', () => run.step(1));
    await expectCode('ERR_BUSY', () => run.save(DELTA));
    await saving;
    const step = run.step(3);
    await expectCode('ERR_BUSY', () => run.save(DELTA));
    await step;
  });

  test('that is closed is ERR_DISPOSED, also while it saves', async () => {
    using engine = await open(CR4);
    const run = engine.createRun(JOB);
    await run.prefill();
    const saving = run.save(DELTA);
    run.close();
    await saving.catch(() => undefined);
    await expectCode('ERR_DISPOSED', () => run.save(DELTA));
    expect(engine.memory().kvAllocatedBytes).toBe(0);
    engine.close();
    await expectCode('ERR_DISPOSED', () => engine.restoreRun(plan([])));
    await expectCode('ERR_DISPOSED', () => engine.identity());
  });

  test('is the only one that can be saved, after its prefill', async () => {
    using engine = await open(CR4);
    using plain = engine.createRun(runOptions());
    await plain.prefill();
    await expectCode('ERR_OPTION', () => plain.save(DELTA));
    using early = engine.createRun(JOB);
    await expectCode('ERR_OPTION', () => early.save(DELTA));
  });

  test('is cancelled while it catches up, and goes on', async () => {
    using engine = await open(CR4, { backend: 'reference' });
    const long = { ...JOB, lengths: new Int32Array(2).fill(200) };
    using first = engine.createRun(long);
    await first.prefill();
    await first.step(100);
    const { objects } = await first.save(DELTA);
    using run = await engine.restoreRun(plan(objects, { tails: false, run: long }));
    const controller = new AbortController();
    const call = run.prefill(controller.signal);
    setTimeout(() => controller.abort(), 5);
    await expectCode('ERR_CANCELLED', () => call);
    await run.prefill();
    expect(run.report().chains.map(({ tokens }) => tokens)).toEqual(first.report().chains.map(({ tokens }) => tokens));
    await Promise.all([run.step(2), first.step(2)]);
    expect(run.report().chains).toEqual(first.report().chains);
  });
});

describe('what cannot be restored', () => {
  test('is refused with a code, and leaves no KV behind', async () => {
    using engine = await open(CR4);
    const saved = await cut(engine);
    const good = plan(saved);
    const broken = (change: (bytes: Uint8Array) => Uint8Array, kind: string): RestoreOptions => ({
      ...good,
      objects: saved.map((object) => (object.kind === kind ? { ...loaded(object), chunks: [change(new Uint8Array(object.bytes))] } : loaded(object))),
    });
    const flipped = (bytes: Uint8Array) => bytes.map((byte, i) => (i === bytes.length >> 1 ? byte ^ 1 : byte));
    for (const kind of ['tail', 'journal']) {
      await expectCode('ERR_CHECKPOINT', () => engine.restoreRun(broken(flipped, kind)));
      await expectCode('ERR_CHECKPOINT', () => engine.restoreRun(broken((bytes) => bytes.subarray(1), kind)));
      await expectCode('ERR_CHECKPOINT', () => engine.restoreRun(broken(() => new Uint8Array(0), kind)));
    }
    await expectCode('ERR_CHECKPOINT', () => engine.restoreRun({ ...good, journals: [] }));
    await expectCode('ERR_OPTION', () => engine.restoreRun({ ...good, seals: [] }));
    await expectCode('ERR_OPTION', () => engine.restoreRun({ ...good, chains: good.chains.slice(1) }));
    await expectCode('ERR_OPTION', () => engine.restoreRun({ ...good, run: { ...JOB, width: 0 } }));
    using other = await open(CR4, { pageSlots: 8 });
    await expectCode('ERR_CHECKPOINT', () => other.restoreRun(good));
    expect(engine.memory().kvAllocatedBytes).toBe(0);
    expect(other.memory().kvAllocatedBytes).toBe(0);
  });

  test('nor what is no plan at all', async () => {
    using engine = await open(CR4);
    const good = plan(await cut(engine));
    const wrong: readonly Record<string, unknown>[] = [
      { objects: 7 }, { objects: [7] }, { objects: [{ ...good.objects[0], chunks: [new Float32Array(4)] }] }, { objects: [{ ...good.objects[0], digest: 'zz' }] },
      { objects: [{ ...good.objects[0], bytes: -1 }] }, { seals: null }, { seals: [{ ...SEAL, digestKey: new Uint8Array(31) }] }, { chains: {} },
      { chains: [{ ...good.chains[0], tail: 'x' }] }, { journals: [0.5] }, { journals: [-1] }, { shardJournals: [[-1]] }, { promptTail: undefined }, { replay: 1 }, { run: null },
      { prefix: undefined }, { prefix: 7 }, { prefix: {} }, { prefix: { ...good.chains[0], segments: [99] }, ownJournal: false }, { prefix: { ...good.chains[0], tail: 99 }, ownJournal: false }, { prefix: good.chains[0] },
    ];
    for (const change of wrong) {
      const refused = await engine.restoreRun({ ...good, ...change } as RestoreOptions).then(() => null, (error: unknown) => error);
      expect(refused, JSON.stringify(change)).toMatchObject({ name: 'EngineError' });
    }
    using run = engine.createRun(JOB);
    await run.prefill();
    for (const change of [{ epoch: -1 }, { n: 2 ** 33 }, { codec: 'gzip' }, { delta: null }, { dataKey: new Uint8Array(16) }, { context: 5 }]) {
      const refused = await run.save({ ...DELTA, ...change } as SaveOptions).then(() => null, (error: unknown) => error);
      expect(refused, JSON.stringify(change)).toMatchObject({ name: 'EngineError' });
    }
    await run.save(DELTA);
  });

  test('a plan may be changed by its caller once it was handed over', async () => {
    using engine = await open(CR4);
    const good = plan(await cut(engine));
    const objects = good.objects.map((object) => ({ ...object, chunks: object.chunks.map((chunk) => new Uint8Array(chunk)) }));
    const restoring = engine.restoreRun({ ...good, objects });
    for (const object of objects) object.chunks.length = 0;
    objects.length = 0;
    using run = await restoring;
    await run.prefill();
  });
});

test('two hundred rounds of saving and restoring keep nothing', async () => {
  using engine = await open(CR4);
  let saved = await cut(engine, 4);
  const round = async (): Promise<void> => {
    const run = await engine.restoreRun(plan(saved));
    await run.prefill();
    await run.save(DELTA);
    run.close();
    run.close();
  };
  for (let i = 0; i < 50; ++i) await round();
  collect();
  const before = process.memoryUsage().rss;
  for (let i = 0; i < 200; ++i) await round();
  collect();
  saved = [];
  expect(engine.memory().kvAllocatedBytes).toBe(0);
  expect(process.memoryUsage().rss - before).toBeLessThan(64 << 20);
});
