/** A job goes on only with the model it began with, as it was asked then; where that cannot be, it says why. */
import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeEach, describe, expect, test } from 'vitest';

import { MemoryStore } from '../../engine/adapters/memory.ts';
import { generate } from '../../engine/job/generate.ts';
import { openSession } from '../../engine/job/session.ts';
import { resumeStored, runStored } from '../../engine/job/stored.ts';
import { bundledModel } from '../helpers/setup.ts';
import { type Bench, benchOf, comparable, create, jobOf, removeTemporary, slice, temporary } from './jobs.ts';

const WHERE = { tenant: 'acme', job: 'sums' };
const session = openSession();
afterAll(() => {
  session[Symbol.dispose]();
  removeTemporary();
});

describe('on an engine with', () => {
  let bench: Bench;
  let store: MemoryStore;
  beforeEach(async () => {
    bench = await benchOf(session, jobOf('countdown cr8'));
    store = new MemoryStore();
    await create(store, WHERE, bench);
    await slice(store, WHERE, bench, { stopAt: 150 });
  });

  test('another page size or KV type it is refused: layout', async () => {
    for (const changes of [{ page_slots: 8 }, { kv: 'bf16' as const }]) {
      const other = await benchOf(session, jobOf('countdown cr8', changes));
      await expect(slice(store, WHERE, { ...bench, engine: other.engine, identity: other.identity })).rejects.toMatchObject({ code: 'ERR_CHECKPOINT', message: expect.stringMatching(/^layout/) as string });
    }
  });

  test('another model it is refused: model', async () => {
    await expect(slice(store, WHERE, bench, { modelId: '0'.repeat(64) })).rejects.toMatchObject({ code: 'ERR_CHECKPOINT', message: expect.stringMatching(/^model/) as string });
  });

  test('other numerics it is replayed, labelled, and its tokens are kept', async () => {
    const outcome = await slice(store, WHERE, bench, { identity: { ...bench.identity, numericsId: 'other-1' } });
    if (outcome.kind !== 'ended') throw new Error('the job did not end');
    expect(outcome.result.resumed).toMatchObject([{ slice: 2, outcome: 'replayed', from_step: 150 }]);
    expect(outcome.result.resumed[0]?.reason).toMatch(/numerics/);
    // The numerics are the same in truth, so all of it is.
    expect(comparable(outcome.result)).toBe(comparable(await session.generate(bench.spec)));
  });
});

describe('under the name it had', () => {
  async function parkedIn(directory: string): Promise<MemoryStore> {
    const store = new MemoryStore();
    const stop = new AbortController();
    const { sampling: _, ...spec } = jobOf('countdown cr8', { model: directory, sampling: undefined });
    const outcome = await runStored(spec, { store, where: WHERE, signal: stop.signal, policy: { firstMs: 0 }, onCommit: () => stop.abort() });
    expect(outcome.kind).toBe('parked');
    return store;
  }

  function model(): string {
    const directory = path.join(temporary(), 'model');
    cpSync(bundledModel('cr8'), directory, { recursive: true });
    return directory;
  }

  test.each([
    ['weights', 'model.safetensors', (file: string) => cpSync(path.join(bundledModel('cr4'), 'model.safetensors'), file)],
    ['tokenizer', 'tokenizer.json', (file: string) => writeFileSync(file, readFileSync(file, 'utf8').replace('"target"', '"tarjet"'))],
    ['template', 'tokenizer_config.json', (file: string) => writeFileSync(file, readFileSync(file, 'utf8').replace('<think>', '<think> '))],
    ['window', 'config.json', (file: string) => writeFileSync(file, readFileSync(file, 'utf8').replace('"dms_window_size": 16', '"dms_window_size": 8'))],
  ] as const)('with other %s it is refused: model', async (_, file, change) => {
    const directory = model();
    const store = await parkedIn(directory);
    const before = readFileSync(path.join(directory, file));
    change(path.join(directory, file));
    expect(readFileSync(path.join(directory, file)).equals(before)).toBe(false);
    await expect(resumeStored({ store, where: WHERE })).rejects.toMatchObject({ code: 'ERR_CHECKPOINT', message: expect.stringMatching(/^model/) as string });
  });

  test('with other sampling defaults it goes on with those it began with', async () => {
    const directory = model();
    const { sampling: _, ...spec } = jobOf('countdown cr8', { model: directory, sampling: undefined });
    const whole = comparable(await generate(spec));
    const store = await parkedIn(directory);
    writeFileSync(path.join(directory, 'generation_config.json'), JSON.stringify({ temperature: 0.3, top_k: 2, do_sample: true }));
    expect(comparable(await generate(spec))).not.toBe(whole);
    const outcome = await resumeStored({ store, where: WHERE });
    if (outcome.kind !== 'ended') throw new Error('the job did not end');
    expect(comparable(outcome.result)).toBe(whole);
  });
});
