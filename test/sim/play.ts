/** What the simulation asks of a protocol, ours or a double with a broken rule; and the actors, who know no more of it than this. */
import { EngineError } from '../../engine/core/errors.ts';
import { pause } from '../../engine/core/waiting.ts';
import type { ObjectStore } from '../../engine/ports/object-store.ts';
import type { SimClock } from './clock.ts';
import type { Watch } from './watch.ts';

export interface Owner {
  readonly epoch: number;
  /** Restores: reads every step that is committed. */
  readonly steps: () => Promise<readonly number[]>;
  readonly commit: (step: number) => Promise<void>;
  /** As a journal, where the protocol has one. */
  readonly flush: (step: number) => Promise<void>;
  /** Commits `step`, and `step + 1` after it, whose upload is made ahead of the first commit. */
  readonly ahead: (step: number) => Promise<void>;
  /** Whole keys of the steps that it takes for committed. */
  readonly acked: () => readonly string[];
  /** As one that cannot run the job after all. */
  readonly giveBack: () => Promise<void>;
  readonly letGo: (state: 'parked' | 'done') => Promise<void>;
}

export interface Setting {
  readonly store: ObjectStore;
  readonly actor: string;
  readonly clock: SimClock;
  readonly random: () => number;
}

export interface Play {
  readonly take: (setting: Setting, force: boolean) => Promise<Owner>;
  readonly collect: (setting: Setting) => Promise<void>;
}

/** Codes after which an actor goes on living: its store fails, or it is not (any more) the owner. */
const EXPECTED: ReadonlySet<string> = new Set(['ERR_STORE', 'ERR_FENCED', 'ERR_JOB_CONFLICT']);

export function isExpected(error: unknown): error is EngineError {
  return error instanceof EngineError && EXPECTED.has(error.code);
}

export interface WorkerPlan {
  readonly steps: number;
  readonly takes: number;
  readonly watch: Watch;
  /** Also parks, ends and flushes; a double with one broken rule only commits. */
  readonly whole: boolean;
}

/** Takes the job again and again, and each time goes on from what is committed. */
export async function work(play: Play, setting: Setting, { steps: target, takes, watch, whole }: WorkerPlan): Promise<void> {
  const { random, clock, actor } = setting;
  for (let take = 0; take < takes; take++) {
    let owner: Owner | null = null;
    try {
      owner = await play.take(setting, random() < 0.3);
      watch.took(owner.epoch);
      if (whole && random() < 0.1) await owner.giveBack();
      let next = (await owner.steps()).length;
      while (next < target) {
        const draw = random();
        if (draw < 0.25 && next + 1 < target) {
          await owner.ahead(next);
          next += 2;
        } else {
          await (draw < 0.6 && whole ? owner.flush(next) : owner.commit(next));
          next++;
        }
        watch.acked(owner.acked());
        const goes = whole ? random() : 1;
        if (goes < 0.1) await (goes < 0.05 ? owner.giveBack() : owner.letGo('parked'));
      }
      if (whole && random() < 0.5) await owner.letGo('done');
    } catch (error) {
      if (error instanceof EngineError && error.code === 'ERR_CHECKPOINT') watch.report('restore', `${actor}: ${error.message}`);
      else if (!isExpected(error)) throw error;
      // Also after a commit of which nobody knows whether it was applied, or will be.
      else if (whole && error.code === 'ERR_STORE' && random() < 0.7) await owner?.giveBack().catch(unlessExpected);
    }
    await pause(clock, random() * 2_000, undefined);
  }
}

export async function collectOften(play: Play, setting: Setting, times: number): Promise<void> {
  const { random, clock } = setting;
  for (let i = 0; i < times; i++) {
    await pause(clock, random() * 1_000, undefined);
    await play.collect(setting).catch(unlessExpected);
  }
}

function unlessExpected(error: unknown): void {
  if (!isExpected(error)) throw error;
}
