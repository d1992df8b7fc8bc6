/**
 * The traces of protocol_traces.md, move by move. Each is played twice: a double that breaks the rule must break the invariant, which shows
 * that the moves are the right ones; the engine must not.
 */
import { describe, expect, test } from 'vitest';

import type { Fault, Operation } from '../../engine/adapters/memory-faults.ts';
import { seededRandom } from '../../engine/adapters/memory-faults.ts';
import { createJob } from '../../engine/kv/create.ts';
import { takeJob } from '../../engine/kv/take.ts';
import { options, SPEC, stepsOf, WHERE } from '../kv/support.ts';
import { doublePlay, type Broken } from './double.ts';
import { enginePlay } from './engine-play.ts';
import { numberedPlay, numberedView } from './numbered.ts';
import { isExpected, type Owner, type Play } from './play.ts';
import { PREFIX } from './seeded.ts';
import { headView, type Invariant } from './watch.ts';
import { World } from './world.ts';

type Actor = 'W1' | 'W2' | 'GC';
type Stop = (operation: Operation, phase: 'call' | 'answer') => boolean;

/** One protocol in one world, with the stops that the traces name. */
class Stage {
  readonly world: World;
  readonly errors: string[] = [];
  readonly #play: Play;
  /** Conditional writes of a take. */
  readonly #takeSwaps: number;
  /** Of W1's first commit. */
  readonly #fault: Fault | null;

  constructor(play: Play, view: 'head' | 'numbered', takeSwaps: 0 | 1, fault: Fault | null) {
    this.#play = play;
    this.#takeSwaps = takeSwaps;
    this.#fault = fault;
    this.world = new World(view === 'head' ? headView(PREFIX) : numberedView(PREFIX), (operation) => this.#faultAt(operation));
  }

  async prepare(): Promise<void> {
    await this.world.calmly((store) => createJob(store, WHERE, SPEC, options()));
  }

  worker(actor: 'W1' | 'W2', ...acts: readonly ((owner: Owner) => Promise<void>)[]): void {
    this.world.start(actor, async (store) => {
      try {
        const owner = await this.#play.take({ store, actor, clock: this.world.clock, random: () => 0.5 }, true);
        this.world.watch.took(owner.epoch);
        await owner.steps();
        for (const act of acts) {
          await act(owner);
          this.world.watch.acked(owner.acked());
        }
      } catch (error) {
        if (!isExpected(error)) throw error;
        this.errors.push(`${actor}: ${error.code}`);
      }
    });
  }

  collector(): void {
    this.world.start('GC', (store) => this.#play.collect({ store, actor: 'GC', clock: this.world.clock, random: seededRandom(1) }));
  }

  /** About to send its n-th commit, resends counted. */
  committing(actor: Actor, n = 1): Promise<boolean> {
    return this.world.until(actor, ({ condition }, phase) => phase === 'call' && condition !== null && this.#swapsOf(actor) === this.#takeSwaps + n - 1);
  }

  /** Has sent its first commit, has no answer, and is about to read the head. */
  asking(actor: Actor): Promise<boolean> {
    return this.world.until(actor, ({ kind, key }, phase) => phase === 'call' && kind === 'get' && key === `${PREFIX}HEAD` && this.#swapsOf(actor) > this.#takeSwaps);
  }

  at(actor: Actor, stop: Stop): Promise<boolean> {
    return this.world.until(actor, stop);
  }

  finish(...actors: readonly Actor[]): Promise<void> {
    return actors.reduce((before, actor) => before.then(() => this.world.finish(actor)), Promise.resolve());
  }

  #swapsOf(actor: Actor): number {
    return this.world.trace.filter((line) => line.startsWith(`${actor} put `) && / if_(match|absent)$/.test(line)).length;
  }

  #commits = 0;
  #faultAt({ actor, condition }: Operation): Fault | null {
    if (actor !== 'W1' || condition === null) return null;
    return this.#commits++ === this.#takeSwaps ? this.#fault : null;
  }
}

const commits = (step: number) => (owner: Owner) => owner.commit(step);
const commitsAhead = (owner: Owner) => owner.ahead(0);
const uploading: Stop = ({ kind, key }, phase) => phase === 'call' && kind === 'put' && key.includes('/j/');
const listing: Stop = ({ kind }, phase) => phase === 'call' && kind === 'list';
const deleting: Stop = ({ kind }, phase) => phase === 'call' && kind === 'delete';

interface Trace {
  readonly name: string;
  readonly broken: readonly Broken[] | 'numbered';
  readonly breaks: readonly Invariant[];
  readonly fault?: Fault;
  readonly moves: (stage: Stage) => Promise<void>;
}

const staleOwner = async (stage: Stage) => {
  stage.worker('W1', commits(0));
  await stage.committing('W1');
  stage.worker('W2', commits(0));
  await stage.at('W2', uploading);
  await stage.finish('W1', 'W2');
};

const collectedUnderWriter = async (stage: Stage) => {
  stage.worker('W1', commits(0));
  await stage.committing('W1');
  stage.collector();
  await stage.at('GC', deleting);
  await stage.finish('W1', 'GC');
};

const collectorFencesFirst = async (stage: Stage) => {
  stage.worker('W1', commits(0));
  await stage.committing('W1');
  stage.collector();
  await stage.at('GC', listing);
  await stage.finish('W1', 'GC');
};

const recheckPasses = async (stage: Stage) => {
  stage.worker('W1', commits(0));
  await stage.committing('W1');
  stage.collector();
  await stage.at('GC', listing);
  await stage.committing('W1', 2);
  await stage.at('GC', deleting);
  await stage.finish('W1', 'GC');
};

const aheadOfFence = async (stage: Stage) => {
  stage.worker('W1', commitsAhead);
  await stage.committing('W1');
  stage.collector();
  await stage.at('GC', listing);
  await stage.finish('W1', 'GC');
};

const TRACES: readonly Trace[] = [
  { name: 'S1: a worker that lost the job commits', broken: 'numbered', breaks: ['fencing'], moves: staleOwner },
  { name: 'S2: a live object is deleted', broken: 'numbered', breaks: ['gc', 'dangling'], moves: collectedUnderWriter },
  {
    name: 'S3: a number is used twice', broken: 'numbered', breaks: ['acked'],
    async moves(stage) {
      stage.worker('W1', commits(0), commits(1));
      await stage.committing('W1');
      stage.worker('W2', commits(0));
      await stage.at('W2', uploading);
      // The fencing of S1, which a numbered protocol has no notion of, is not the point here.
      await stage.finish('W1');
      stage.collector();
      await stage.finish('GC', 'W2');
    },
  },
  { name: 'C1: the old owner beats the new one', broken: ['C1'], breaks: ['fencing'], moves: staleOwner },
  { name: 'C2: live objects are deleted where neither take nor collection writes the head', broken: ['C1', 'E1'], breaks: ['gc', 'dangling'], moves: collectedUnderWriter },
  { name: 'E1: live objects are deleted where a collection does not write the head', broken: ['E1'], breaks: ['gc', 'dangling'], moves: collectedUnderWriter },
  {
    name: 'G1: an upload made after the fence', broken: ['G1'], breaks: ['gc', 'dangling'],
    async moves(stage) {
      stage.collector();
      await stage.at('GC', listing);
      stage.worker('W1', commits(0));
      await stage.committing('W1');
      await stage.at('GC', deleting);
      await stage.finish('W1', 'GC');
    },
  },
  { name: 'G2: the check passes, the deletion lands after it', broken: ['G2'], breaks: ['gc', 'dangling'], moves: recheckPasses },
  {
    name: 'N1: a reply is lost and nonces are not compared', broken: ['N1'], breaks: ['once'], fault: { kind: 'lost_ack' },
    async moves(stage) {
      stage.worker('W1', commits(0));
      await stage.finish('W1');
    },
  },
  {
    name: 'N2: a reply is lost and a collection overwrites the nonce', broken: ['N2'], breaks: ['once'], fault: { kind: 'lost_ack' },
    async moves(stage) {
      stage.worker('W1', commits(0));
      await stage.asking('W1');
      stage.collector();
      await stage.finish('GC', 'W1');
    },
  },
  { name: 'N3: one nonce per owner', broken: ['N3'], breaks: ['acked'], moves: collectorFencesFirst },
  {
    name: 'N4: a commit without an answer is sent again, and the first one arrives late', broken: ['N4'], breaks: ['once'], fault: { kind: 'late' },
    async moves(stage) {
      stage.worker('W1', commits(0));
      await stage.committing('W1', 2);
      stage.world.arrive();
      await stage.finish('W1');
    },
  },
  { name: 'F1: the fence is inclusive', broken: ['F1'], breaks: ['gc', 'dangling'], moves: collectorFencesFirst },
  { name: 'F2: only objects are named anew, the manifest is not', broken: ['F2'], breaks: ['gc', 'dangling'], moves: collectorFencesFirst },
  { name: 'F3: existence is checked again instead of naming anew', broken: ['G2'], breaks: ['gc', 'dangling'], moves: recheckPasses },
  { name: 'F4: only the refused commit\'s uploads are named anew', broken: ['F4'], breaks: ['gc', 'dangling'], moves: aheadOfFence },
  {
    name: 'F4, shorter: the reply is lost, so nothing was refused', broken: ['F4'], breaks: ['gc', 'dangling'], fault: { kind: 'lost_ack' },
    async moves(stage) {
      stage.worker('W1', commitsAhead);
      await stage.asking('W1');
      stage.collector();
      await stage.at('GC', listing);
      await stage.finish('W1', 'GC');
    },
  },
];

async function played(play: Play, view: 'head' | 'numbered', takeSwaps: 0 | 1, { moves, fault }: Trace): Promise<Stage> {
  const stage = new Stage(play, view, takeSwaps, fault ?? null);
  await stage.prepare();
  await moves(stage);
  return stage;
}

describe.each(TRACES)('$name', (trace) => {
  test('breaks a protocol without the rule', async () => {
    const { broken, breaks } = trace;
    const { world } = await (broken === 'numbered' ? played(numberedPlay(PREFIX), 'numbered', 0, trace) : played(doublePlay(PREFIX, ...broken), 'head', broken.includes('C1') ? 0 : 1, trace));
    const found = world.violations.map(({ invariant }) => invariant);
    expect(found.filter((invariant) => breaks.includes(invariant)), world.trace.join('\n')).not.toEqual([]);
  });

  test('does not break the same protocol with all rules', async () => {
    const { world } = await played(doublePlay(PREFIX), 'head', 1, trace);
    expect(world.violations, world.trace.join('\n')).toEqual([]);
  });

  test('does not break the engine, and the job goes on', async () => {
    const { world, errors } = await played(enginePlay, 'head', 1, trace);
    expect(world.violations, world.trace.join('\n')).toEqual([]);
    expect(errors).toEqual(trace.moves === staleOwner || trace.name.startsWith('S3') ? ['W1: ERR_FENCED'] : []);
    await world.calmly(async (store) => {
      const lease = await takeJob(store, WHERE, { ...options(), clock: world.clock, force: true });
      expect((await stepsOf(lease)).length).toBe(trace.moves === aheadOfFence || trace.name.startsWith('F4') ? 2 : 1);
    });
  });
});
