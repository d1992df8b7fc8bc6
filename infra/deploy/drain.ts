/**
 * Before workers take over that could not go on with what the others have begun, or not bit by bit: those that are there finish it. They begin nothing new meanwhile, so
 * that this ends; what is asked for in the meantime waits in its queue for the new ones. It writes one parameter of a stack, and may be stopped and run again.
 */
import { type CloudFormationClient, DescribeStacksCommand, type Stack, UpdateStackCommand } from '@aws-sdk/client-cloudformation';
import { setTimeout as sleep } from 'node:timers/promises';

import type { Context } from './context.ts';
import { type Identity, type Pinned, rolloutOf, sentenceOf } from './rollout.ts';

const LOOK_MS = 15_000;
const STACK_LOOK_MS = 5_000;
/** Tasks are exchanged when none of them is protected any more: a slice, and its minute. */
const STACK_MS_MAX = 60 * 60_000;
/** Of a progress that has not changed. */
const SAY_MS = 60_000;

export interface DrainOptions {
  readonly to: Identity;
  /** What jobs that have begun are pinned to now. */
  readonly look: () => Promise<readonly Pinned[]>;
  readonly deadlineMs: number;
  readonly everyMs?: number;
}

/** Resolves when every job that has begun could go on with `to`. @throws Error: the deadline is over, or it was told to stop; what to do then. */
export async function drain(context: Pick<Context, 'clients' | 'stackName' | 'say' | 'signal' | 'options'>, { to, look, deadlineMs, everyMs = LOOK_MS }: DrainOptions): Promise<void> {
  const { say, signal, options: { stage } } = context;
  const then = `The workers that are there go on with what has begun and begin nothing; what is new waits. Run the same command to wait on, or \`npm run deploy -- --stage ${stage} --rollback\` to leave the stage to them.`;
  const startedMs = performance.now();
  try {
    await beginNothing(context, Math.min(everyMs, STACK_LOOK_MS));
    for (let [said, saidMs] = [0, -Infinity];;) {
      signal.throwIfAborted();
      const pinned = await look();
      const rollout = rolloutOf(to, pinned);
      if (rollout.kind === 'roll') return say(`  none is left after ${Math.round((performance.now() - startedMs) / 1_000)} s`);
      const passedMs = performance.now() - startedMs;
      if (passedMs >= deadlineMs) throw new Error(`After ${Math.round(passedMs / 60_000)} minutes: ${sentenceOf(rollout)}. ${then}`);
      const left = rollout.stranded + rollout.changed;
      if (left !== said || passedMs - saidMs >= SAY_MS) {
        say(`  ${left} job${left === 1 ? '' : 's'} left; ${Math.ceil((deadlineMs - passedMs) / 60_000)} minutes at most`);
        [said, saidMs] = [left, passedMs];
      }
      await sleep(Math.min(everyMs, deadlineMs - passedMs), undefined, { signal });
    }
  } catch (error) {
    throw signal.aborted ? new Error(`Stopped while those that are there finish. ${then}`) : error;
  }
}

/** Their image and everything else stays as it is. */
async function beginNothing({ clients: { stacks }, stackName, say, signal }: Pick<Context, 'clients' | 'stackName' | 'say' | 'signal'>, everyMs: number): Promise<void> {
  const StackName = stackName('Workers');
  const before = await settled(stacks, StackName, everyMs, signal);
  const begin = before?.Parameters?.find(({ ParameterKey }) => ParameterKey === 'Begin');
  if (before === null || begin === undefined) return say('  the workers that are there cannot be told to begin nothing: this ends when nothing new comes');
  if (begin.ParameterValue === '0') return;
  say('  the workers that are there begin nothing from now on');
  await stacks.send(new UpdateStackCommand({
    StackName, UsePreviousTemplate: true, Capabilities: ['CAPABILITY_IAM', 'CAPABILITY_NAMED_IAM'],
    Parameters: (before.Parameters ?? []).map(({ ParameterKey }) => (ParameterKey === 'Begin' ? { ParameterKey, ParameterValue: '0' } : { ParameterKey, UsePreviousValue: true })),
  }), { abortSignal: signal });
  const after = await settled(stacks, StackName, everyMs, signal);
  if (after?.StackStatus !== 'UPDATE_COMPLETE') throw new Error(`The stack ${StackName} is ${after?.StackStatus ?? 'gone'} (${after?.StackStatusReason ?? 'no reason is given'}).`);
}

/** When nobody changes it. null: there is none. */
async function settled(stacks: CloudFormationClient, StackName: string, everyMs: number, signal: AbortSignal): Promise<Stack | null> {
  for (const startedMs = performance.now();;) {
    const stack = await stacks.send(new DescribeStacksCommand({ StackName }), { abortSignal: signal }).then(({ Stacks }) => Stacks?.[0] ?? null, (error: Error) => {
      if (/does not exist/.test(error.message)) return null;
      throw error;
    });
    if (stack?.StackStatus?.endsWith('_IN_PROGRESS') !== true) return stack;
    if (performance.now() - startedMs > STACK_MS_MAX) throw new Error(`The stack ${StackName} is still ${stack.StackStatus} after ${STACK_MS_MAX / 60_000} minutes.`);
    await sleep(everyMs, undefined, { signal });
  }
}
