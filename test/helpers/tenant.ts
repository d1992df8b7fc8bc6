/**
 * One tenant of the addon, as a worker thread or as a process of its own: `tenant.ts <mode>` or workerData = mode.
 * Prints or posts one line of JSON when it has got to where the mode wants it, and never closes a handle.
 */
import { parentPort, workerData } from 'node:worker_threads';

import { nativeInfo } from '../../engine/runtime/native.ts';
import { bundledModel, open, runOptions } from './setup.ts';

export type Mode = 'info' | 'use' | 'save' | 'step' | 'step-then-exit' | 'prefill-then-exit' | 'open-then-exit' | 'throw';

const mode = (parentPort === null ? process.argv[2] : workerData) as Mode;

function say(value: unknown): void {
  if (parentPort === null) process.stdout.write(`${JSON.stringify(value)}\n`);
  else parentPort.postMessage(value);
}

if (mode === 'info') {
  try {
    say(nativeInfo());
  } catch (error) {
    say({ code: (error as { code?: string }).code });
  }
} else if (mode === 'open-then-exit') {
  void open(bundledModel('cr4'));
  say('opening');
  process.exit(0);
} else if (mode === 'use') {
  const engine = await open(bundledModel('cr4'));
  const run = engine.createRun(runOptions());
  await run.prefill();
  await run.step(8);
  say(run.report().chains.map((chain) => [...chain.tokens]));
} else if (mode === 'save') {
  const engine = await open(bundledModel('cr4'));
  const run = engine.createRun(runOptions({ checkpointed: true }));
  await run.prefill();
  const { objects } = await run.save({ delta: true, epoch: 0, n: 0, codec: 'raw', dataKey: null, digestKey: null, context: '' });
  say(objects.length > 0);
} else {
  // The reference backend: minutes of work if nobody stops it.
  const engine = await open(bundledModel('cr4'), { backend: 'reference' });
  const prompt = Int32Array.from({ length: 1000 }, (_, i) => i % 100);
  const run = mode === 'prefill-then-exit' ? engine.createRun(runOptions({ prompt, length: 1 })) : engine.createRun(runOptions({ width: 64, length: 900 }));
  if (mode === 'prefill-then-exit') {
    void run.prefill();
  } else {
    await run.prefill();
    void run.step(900);
  }
  // By now the call is on its thread.
  await new Promise((resolve) => setTimeout(resolve, 20));
  say('running');
  if (mode === 'throw') throw new Error('on purpose');
  if (mode !== 'step') process.exit(0);
}
