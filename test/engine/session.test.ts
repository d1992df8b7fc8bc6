/** Several jobs on one session, at the same time. */
import { afterEach, describe, expect, test, vi } from 'vitest';

import { openSession } from '../../engine/job/session.ts';
import type { JobSpec } from '../../engine/job/spec.ts';
import { localModels } from '../../engine/model/finder.ts';
import type { ModelFinder } from '../../engine/ports/models.ts';

const specOf = (seed: number): JobSpec => ({
  model: 'countdown', prompt: '4 20 8 13 target 59', budget: { compression_ratio: 8, length: 60 + seed, width: 1 + (seed % 3) }, seed: BigInt(seed), threads: 1,
});
const SEEDS = [0, 1, 2, 3, 4, 5];

afterEach(() => {
  delete process.env.RUMINATE_MEMORY_LIMIT;
});

describe('jobs of one session at the same time', () => {
  test('give what each gives alone', async () => {
    using session = openSession();
    const alone = [];
    for (const seed of SEEDS) alone.push(answerOf(await session.generate(specOf(seed))));
    const together = await Promise.all(SEEDS.map(async (seed) => answerOf(await session.generate(specOf(seed)))));
    expect(together).toEqual(alone);
  });

  test('load a model once, also when the job that began to load it is cancelled', async () => {
    using session = openSession();
    const controller = new AbortController();
    const first = session.generate(specOf(1), { signal: controller.signal }).catch((error: unknown) => error);
    const others = [session.open(specOf(2)), session.open(specOf(3))];
    controller.abort();
    const [second, third] = await Promise.all(others);
    expect(second!.engine).toBe(third!.engine);
    await first;
  });

  test('find a model once and let go of it once', async () => {
    let finds = 0;
    let pins = 0;
    const counting: ModelFinder = {
      find: async (name, options) => {
        finds++;
        const found = await localModels.find(name, options);
        pins++;
        return { ...found, [Symbol.asyncDispose]: async () => void pins-- };
      },
    };
    const session = openSession(counting);
    await Promise.all(SEEDS.map(async () => session.prepare(specOf(1))));
    expect([finds, pins]).toEqual([1, 1]);
    session[Symbol.dispose]();
    await vi.waitFor(() => expect(pins).toBe(0), { timeout: 20_000 });
  });

  test('are admitted beside what the others may still take, and again when those are over', async () => {
    using session = openSession();
    const quote = await session.quote(specOf(1));
    const kvBytes = quote.expected.allocated_bytes - quote.weight_bytes;
    process.env.RUMINATE_MEMORY_LIMIT = String(quote.expected.allocated_bytes);
    const first = await session.open(specOf(1));
    process.env.RUMINATE_MEMORY_LIMIT = String(Math.floor(kvBytes * 1.9));
    await expect(session.open(specOf(1))).rejects.toMatchObject({ code: 'ERR_MEMORY' });
    first[Symbol.dispose]();
    const second = await session.open(specOf(1));
    expect(second.engine).toBe(first.engine);
    second[Symbol.dispose]();
  });
});

function answerOf({ answer, ballots, chains, usage }: Awaited<ReturnType<ReturnType<typeof openSession>['generate']>>) {
  return { answer, ballots, chains, usage };
}
