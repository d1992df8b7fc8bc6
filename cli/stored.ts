/** What the commands on stored jobs share: where the store is, how a job is watched, and what is said of how it ended. */
import { type Command } from 'commander';

import { keyProviderOf } from '../engine/adapters/key-url.ts';
import { openStore } from '../engine/adapters/store-url.ts';
import { EngineError } from '../engine/core/errors.ts';
import type { CheckpointPolicy } from '../engine/job/checkpointer.ts';
import { DEFAULT_POLICY } from '../engine/job/checkpointer.ts';
import type { Progress } from '../engine/job/generate.ts';
import type { StoredOptions, StoredOutcome } from '../engine/job/stored.ts';
import { readJob } from '../engine/kv/create.ts';
import type { JobKey } from '../engine/kv/names.ts';
import type { ObjectStore } from '../engine/ports/object-store.ts';
import { EXIT, onInterrupt } from './exit.ts';
import { modelFinder } from './finder.ts';
import { openView, silentView, type View } from './live.ts';
import { durationMs, integer } from './options.ts';
import { report } from './report.ts';
import { canRedraw, paintFor } from './text.ts';

export interface StoreFlags {
  readonly store?: string;
  readonly tenant: string;
}

export interface PolicyFlags {
  readonly checkpointTokens?: number;
  readonly checkpointTime?: number;
  readonly journalTime?: number;
}

export interface WatchFlags extends StoreFlags, PolicyFlags {
  readonly take?: boolean;
  readonly threads?: number;
  readonly showChains?: boolean;
  readonly json?: boolean;
}

export function storeOptions(command: Command): Command {
  return command
    .option('--store <url>', 'where jobs are kept: a directory, file:/… or s3://bucket/prefix (default: RUMINATE_STORE)')
    .option('--tenant <name>', 'whose jobs', 'local');
}

/** Of commands that run a job. */
export function checkpointOptions(command: Command): Command {
  return policyOptions(command.option('--take', 'take a running job although its owner may be alive; that one writes nothing more'));
}

export function policyOptions(command: Command): Command {
  return command
    .option('--checkpoint-tokens <n>', `tokens of a chain between two checkpoints (default: ${DEFAULT_POLICY.deltaTokens})`, integer)
    .option('--checkpoint-time <time>', `or time between them (default: ${DEFAULT_POLICY.deltaMs / 1000}s)`, durationMs)
    .option('--journal-time <time>', `tokens alone are kept this often in between (default: ${DEFAULT_POLICY.journalMs / 1000}s)`, durationMs);
}

/** @param kind `existing`: of commands on jobs that are there, for which a directory that is not is a mistake and no empty store. */
export async function openJobStore({ store }: StoreFlags, kind: 'new' | 'existing'): Promise<ObjectStore> {
  const url = store ?? process.env.RUMINATE_STORE ?? '';
  if (url === '') throw new EngineError('ERR_OPTION', 'Say where jobs are kept with --store DIR or --store s3://bucket/prefix, or set RUMINATE_STORE.');
  return await openStore(url, { mustExist: kind === 'existing' });
}

export function policyOf({ checkpointTokens, checkpointTime, journalTime }: PolicyFlags): Partial<CheckpointPolicy> {
  for (const [name, value] of Object.entries({ checkpointTokens, checkpointTime, journalTime })) {
    if (value !== undefined && value < 1) throw new EngineError('ERR_OPTION', `${name.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`)} must be at least 1; got ${value}.`);
  }
  return {
    ...(checkpointTokens === undefined ? {} : { deltaTokens: checkpointTokens }),
    ...(checkpointTime === undefined ? {} : { deltaMs: checkpointTime }),
    ...(journalTime === undefined ? {} : { journalMs: journalTime }),
  };
}

const PARKING = 'ruminate: parking at the next step; again to leave at once (what is committed stays)\n';
const STOPPING = 'ruminate: stopping; again to leave at once\n';
const RUNNING: readonly Progress['phase'][] = ['prefill', 'decode'];

/** Interrupted while the model was loaded, say: what there is in the store then, for whoever has to decide what to do next. */
async function beforeItRan(error: unknown, store: ObjectStore, where: JobKey): Promise<unknown> {
  if (!(error instanceof EngineError && error.code === 'ERR_CANCELLED')) return error;
  try {
    const { head } = await readJob(store, where);
    return new EngineError('ERR_CANCELLED', `The job ${where.job} was not run; it stays in the store (${head.state}).`, { cause: error });
  } catch (failure) {
    if (!(failure instanceof EngineError && failure.code === 'ERR_JOB_NOT_FOUND')) return error;
    return new EngineError('ERR_CANCELLED', `The job ${where.job} was not begun; nothing was stored.`, { cause: error });
  }
}

/** Runs one slice of a stored job, watched; prints its result, or where it stands. */
export async function watchStored(
  title: string, job: string, kind: 'new' | 'existing', flags: WatchFlags, length: number | null, work: (options: StoredOptions) => Promise<StoredOutcome>,
): Promise<void> {
  const stream = process.stderr;
  const store = await openJobStore(flags, kind);
  const keys = await keyProviderOf();
  const where = { tenant: flags.tenant, job };
  let isRunning = false;
  using interrupt = onInterrupt(() => stream.write(isRunning ? PARKING : STOPPING));
  const term = process.env.TERM;
  const view: View = flags.json === true && !canRedraw(stream, term) ? silentView : openView({ stream, title, length, now: () => performance.now(), term });
  let outcome;
  try {
    await store.probe({ signal: interrupt.signal });
    outcome = await work({
      store,
      where,
      take: flags.take,
      policy: policyOf(flags),
      models: modelFinder(),
      keys,
      signal: interrupt.signal,
      onProgress: (progress) => {
        isRunning ||= RUNNING.includes(progress.phase);
        view.update(progress);
      },
      ...(flags.threads === undefined ? {} : { threads: flags.threads }),
    });
  } catch (error) {
    throw interrupt.signal.aborted ? await beforeItRan(error, store, where) : error;
  } finally {
    view.close();
  }
  if (outcome.kind === 'parked') {
    const { step, tokens } = outcome;
    const again = `ruminate resume ${job} --store ${store.url}${flags.tenant === 'local' ? '' : ` --tenant ${flags.tenant}`}`;
    if (flags.json === true) process.stdout.write(`${JSON.stringify({ job, state: 'parked', step, tokens })}\n`);
    stream.write(`ruminate: parked ${job} at step ${step}, ${tokens} tokens; \`${again}\` goes on\n`);
    process.exitCode = EXIT.interrupted;
    return;
  }
  const { result } = outcome;
  process.stdout.write(flags.json === true ? `${JSON.stringify(result)}\n` : report(result, { paint: paintFor(process.stdout), showChains: flags.showChains === true }));
}
