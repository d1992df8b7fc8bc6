/** `ruminate checkpoint verify`: reads every byte of a job, or of all jobs. */
import type { Command } from 'commander';

import { keyProviderOf } from '../engine/adapters/key-url.ts';
import { EngineError } from '../engine/core/errors.ts';
import { isRight, verifyJob, type Verified } from '../engine/checkpoint/verify.ts';
import { listJobs } from '../engine/kv/create.ts';
import type { ObjectStore } from '../engine/ports/object-store.ts';

import { EXIT, onInterrupt } from './exit.ts';
import { openMeter } from './meter.ts';
import { command } from './options.ts';
import { openJobStore, storeOptions, type StoreFlags } from './stored.ts';
import { bytes, paintFor, plural, type Paint } from './text.ts';

const NO_KEY = 'sealed, and no key is set: digests and encryption were not checked';

export function verifyCommand(): Command {
  return storeOptions(command('verify'))
    .description('read every byte again: head, spec, manifest, and size, structure, CRC and digest of every frame of every object')
    .argument('[job]', 'or --all')
    .option('--all', 'every job of the tenant')
    .option('--json', 'one JSON object a job, with each fault and its reason word')
    .addHelpText('after', '\nRUMINATE_KEY opens what is encrypted; without it CRCs are checked, and that is not enough for a 0.\nExit status: 0 if every byte is right, else 1.\n\nExamples:\n  $ ruminate checkpoint verify sums\n  $ ruminate checkpoint verify --all --json | jq .faults')
    .action(async (job: string | undefined, flags: StoreFlags & { all?: boolean; json?: boolean }) => {
      if ((job === undefined) === (flags.all !== true)) throw new EngineError('ERR_OPTION', 'Name one job, or say --all.');
      const store = await openJobStore(flags, 'existing');
      const keys = await keyProviderOf();
      using interrupt = onInterrupt(() => {});
      const { signal } = interrupt;
      const paint = paintFor(process.stdout);
      for await (const where of job === undefined ? listJobs(store, flags.tenant, { signal }) : [{ tenant: flags.tenant, job }]) {
        using meter = openMeter(process.stderr, `verifying ${where.job}`);
        const verified = await verifyJob(store, where, { keys, signal, onProgress: ({ name, doneBytes, bytes: all }) => meter.update(name, doneBytes, all) });
        meter[Symbol.dispose]();
        if (!isRight(verified)) process.exitCode = EXIT.failed;
        process.stdout.write(flags.json === true ? `${JSON.stringify(jsonOf(verified, store))}\n` : verifiedText(verified, paint));
      }
    });
}

function jsonOf(verified: Verified, store: ObjectStore): object {
  const { where, ...rest } = verified;
  return { job: where.job, tenant: where.tenant, store: store.url, right: isRight(verified), ...rest };
}

export function verifiedText(verified: Verified, paint: Paint): string {
  const { where, state, objects, bytes: size, frames, faults, complete } = verified;
  const verdict = faults.length > 0 ? paint.red(plural(faults.length, 'fault')) : complete ? paint.green('right') : paint.yellow('not all checked');
  const lines = [`${where.job}: ${verdict}, ${plural(objects, 'object')}, ${plural(frames, 'frame')}, ${bytes(size)}${state === null ? '' : `, ${state}`}`];
  if (!complete) lines.push(`  ${NO_KEY}`);
  for (const { name, message } of faults) lines.push(`  ${name}: ${message}`);
  return `${lines.join('\n')}\n`;
}
