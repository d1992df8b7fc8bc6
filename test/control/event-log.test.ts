/** The events of a job are a function of the job: whatever was known of it when, they are the same, in one order, and say all of its text. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { seededRandom } from '../../engine/adapters/memory-faults.ts';
import { MemoryStore } from '../../engine/adapters/memory.ts';
import { NativeShelf } from '../../engine/control/native-shelf.ts';
import { readRecord } from '../../engine/control/record.ts';
import { splitThinking } from '../../engine/job/answer.ts';
import { chainText } from '../../engine/job/ballots.ts';
import { EventLog, type LogEvent } from '../../engine/job/event-log.ts';
import type { FinishReason } from '../../engine/job/generate.ts';
import { JournalReader, endReason } from '../../engine/job/journals.ts';
import type { PreparedJob } from '../../engine/job/prepare.ts';
import { closed } from '../../engine/job/run.ts';
import type { JobSpec } from '../../engine/job/spec.ts';
import { parseStoredSpec } from '../../engine/job/stored-spec.ts';
import type { RunReport } from '../../engine/runtime/native.ts';
import { TENANT, platformOn, runToEnd } from './support.ts';

const shelf = new NativeShelf();
afterAll(() => shelf[Symbol.dispose]());

const COUNTDOWN: JobSpec = { model: 'countdown@cr2', prompt: '4 20 8 13 target 59', seed: 2, budget: { length: 600, width: 3 } };
const JOBS: Readonly<Record<string, JobSpec>> = {
  'whose chains stop and reach their length': { ...COUNTDOWN, vote: 'none' },
  'that is decided early': COUNTDOWN,
  'with stop strings': { ...COUNTDOWN, vote: 'none', stop: ['+', '20 8'] },
  'that runs out of KV reads': { ...COUNTDOWN, vote: 'none', budget: { length: 600, width: 3, kv_read_budget: 20_000 } },
  'of chains of unequal length': { ...COUNTDOWN, vote: 'none', budget: { lengths: [1, 40, 200, 40] } },
  'that does not think': { ...COUNTDOWN, thinking: null },
};

interface Ended {
  readonly job: PreparedJob;
  readonly report: RunReport;
  readonly ended: FinishReason | null;
}

async function endedJob(spec: JobSpec): Promise<Ended> {
  const store = new MemoryStore();
  const { platform } = platformOn(store, shelf);
  const { id } = await platform.submit(spec, { tenant: TENANT });
  await runToEnd(store, id);
  const where = { tenant: TENANT, job: id };
  const { head, manifest, specText } = await readRecord(store, where);
  const job = await shelf.restore(parseStoredSpec(specText), id);
  using journals = new JournalReader({ store, where, keys: null, decode: shelf.decodeJournals });
  return { job, report: closed(await journals.read(job, head, manifest)), ended: endReason(head.state, manifest) };
}

/** What was known when every chain had been stepped to `step`. */
function knownAt(report: RunReport, step: number): RunReport {
  return {
    ...report,
    step: Math.min(step, report.step),
    chains: report.chains.map((chain) => ({
      ...chain,
      tokens: chain.tokens.subarray(0, step),
      finish: chain.finish !== 'ended' && chain.tokens.length <= step ? chain.finish : null,
      stopBytes: chain.tokens.length <= step ? chain.stopBytes : null,
    })),
  };
}

describe.each(Object.entries(JOBS))('a job %s', (_, spec) => {
  let of: Ended;
  let once: readonly LogEvent[];
  beforeAll(async () => {
    of = await endedJob(spec);
    once = [...new EventLog(of.job).push(of.report, of.ended)];
  });

  test('has each token and each end of a chain once, by step and then by chain', () => {
    expect(once.map(({ seq }) => seq)).toEqual(once.map((_event, i) => i));
    const places = once.map((event) => (event.kind === 'token' ? [event.index + 1, event.chain, 0] : [lastStep(of, event.chain), event.chain, 1]));
    expect(places).toEqual(places.toSorted(([a = 0, b = 0, c = 0], [x = 0, y = 0, z = 0]) => a - x || b - y || c - z));
    of.report.chains.forEach((chain, i) => {
      expect(once.flatMap((event) => (event.kind === 'token' && event.chain === i ? [event.token] : []))).toEqual([...chain.tokens]);
      expect(once.filter((event) => event.kind === 'finish' && event.chain === i)).toMatchObject([{ reason: chain.finish === 'ended' ? of.ended : chain.finish }]);
    });
  });

  test('gives out all of its text, parted as the whole text is', () => {
    of.report.chains.forEach((chain, i) => {
      const deltas = once.filter((event) => event.chain === i).map(({ delta }) => delta);
      const { thinking, answer } = splitThinking(chainText(of.job, chain), of.job.thinking, of.job.opened);
      expect({ reasoning: deltas.map(({ reasoning }) => reasoning).join(''), content: deltas.map(({ content }) => content).join('') }).toEqual({ reasoning: thinking, content: answer ?? '' });
    });
  });

  test('gives the same events whatever was known of it when', () => {
    for (let seed = 0; seed < 20; seed++) {
      const chance = seededRandom(seed);
      const random = (below: number): number => Math.floor(chance() * below);
      const log = new EventLog(of.job);
      const events: LogEvent[] = [];
      // Back and forth, as a reader sees it that goes from a live run to the store.
      for (let looks = random(12); looks > 0; looks--) events.push(...log.push(knownAt(of.report, random(of.report.step + 2)), null));
      // Ended from outside, but by whom is not known yet.
      if (random(2) === 0) events.push(...log.push(of.report, null));
      events.push(...log.push(of.report, of.ended));
      expect(events, `seed ${seed}`).toEqual(once);
    }
  });
});

function lastStep({ report }: Ended, chain: number): number {
  const { finish, tokens } = report.chains[chain] ?? { finish: null, tokens: [] };
  return finish === 'stop' || finish === 'length' ? tokens.length : tokens.length + 1;
}
