/** Jobs whose processes are killed again and again: no committed work is lost, no token is another, nothing is billed twice. */
import { setTimeout as sleep } from 'node:timers/promises';
import { beforeAll, describe, expect, test } from 'vitest';

import { seededRandom } from '../../engine/adapters/memory-faults.ts';
import { openStore } from '../../engine/adapters/store-url.ts';
import { generate } from '../../engine/job/generate.ts';
import type { KillPoint } from '../helpers/job-worker.ts';
import { comparable, jobOf, temporary } from './jobs.ts';
import { keptOf, work } from './workers.ts';

const KINDS = ['segment', 'tail', 'journal', 'manifest', 'head'] as const;
/** As many writes as the store takes, in a run that is long enough for dozens. */
const POLICY = { deltaTokens: 48, deltaMs: 60_000, journalMs: 1, firstMs: 0 };
const LENGTHS = [640, 90, 500, 640];
const KILLS_MAX = 6;

/** @param seeds of the runs; each is killed up to six times at points or moments that its seed chooses. */
export function describeKills(seeds: readonly number[]): void {
  describe('a job whose processes are killed', () => {
    const spec = jobOf('countdown cr8', { budget: { lengths: LENGTHS } });
    let whole: string;
    let kills = 0;
    beforeAll(async () => {
      whole = comparable(await generate(spec));
    });

    test.each(seeds)('seed %i', async (seed) => {
      const random = seededRandom(seed);
      const store = await openStore(temporary({ quick: true }));
      const work_ = { store: store.url, job: 'sums', spec, policy: POLICY, take: false };
      let before = await keptOf(store, 'sums');
      let killed = 0;
      for (let attempt = 0; ; attempt++) {
        const isPoint = random() < 0.6;
        const point: KillPoint = { when: random() < 0.5 ? 'before' : 'after', kind: KINDS[Math.floor(random() * KINDS.length)] ?? 'head', nth: 1 + Math.floor(random() * 6) };
        const [commits, delayMs] = [Math.floor(random() * 6), random() * 30];
        const isLast = attempt >= KILLS_MAX;
        const worker = work({ ...work_, kill: isPoint && !isLast ? point : null });
        if (!isPoint && !isLast) {
          await worker.commits(commits);
          await sleep(delayMs);
          worker.process.kill('SIGKILL');
        }
        const said = await worker.ended;
        const what = `seed ${seed}, attempt ${attempt}, ${isPoint ? JSON.stringify(point) : `${commits} commits and ${delayMs} ms`}`;
        const after = await keptOf(store, 'sums');
        expect(after?.manifest?.step ?? 0, what).toBeGreaterThanOrEqual(before?.manifest?.step ?? 0);
        before?.tokens.forEach((tokens, chain) => expect(after?.tokens[chain]?.slice(0, tokens.length), what).toEqual(tokens));
        before = after;
        if (said === null) {
          killed += 1;
          kills += 1;
          continue;
        }
        if (said.kind !== 'ended') throw new Error(`${what}: ${JSON.stringify(said)}`);
        expect(comparable(said.result), what).toBe(whole);
        // Every slice that is on record has an epoch of its own, and all but the first went on from what was committed.
        const slices = after?.manifest?.slices ?? [];
        expect(new Set(slices.map(({ epoch }) => epoch)).size).toBe(slices.length);
        expect(slices.length).toBeLessThanOrEqual(killed + 1);
        // All but the first take; and the first on record, if one before it had left nothing.
        expect(said.result.resumed).toHaveLength(slices.filter(({ slice }) => slice > 1).length);
        expect(after?.head.state).toBe('done');
        break;
      }
    }, 600_000);

    test('and they were killed', () => expect(kills).toBeGreaterThan(seeds.length / 2));
  });
}
