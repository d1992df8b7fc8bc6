/** `ruminate gc`: removes objects that no head needs. */
import type { Command } from 'commander';

import { expireDue } from '../engine/control/retention.ts';
import { sweepTenant } from '../engine/control/sweep.ts';
import { EngineError } from '../engine/core/errors.ts';
import { listJobs } from '../engine/kv/create.ts';
import { collectGarbage } from '../engine/kv/gc.ts';
import type { ObjectStore } from '../engine/ports/object-store.ts';
import { EXIT, failureLine, onInterrupt } from './exit.ts';
import { command } from './options.ts';
import { openJobStore, storeOptions, type StoreFlags } from './stored.ts';
import { bytes, count, plural, safe } from './text.ts';

interface GcFlags extends StoreFlags {
  readonly all?: boolean;
  readonly dryRun?: boolean;
  readonly json?: boolean;
}

export function gcCommand(): Command {
  return storeOptions(command('gc'))
    .description('delete objects that no head needs: replaced tails and manifests, uploads of killed processes; safe beside running jobs')
    .argument('[job]', 'or --all')
    .option('--all', 'every job of the tenant, its files and its batches')
    .option('--dry-run', 'only say what would go')
    .option('--json', 'one JSON object a job')
    .addHelpText('after', '\nExit status: 1 if a job could not be collected; nothing of it was deleted then.\n\nExamples:\n  $ ruminate gc sums --dry-run\n  $ ruminate gc --all --store s3://kv-bucket/jobs')
    .action(async (job: string | undefined, flags: GcFlags) => {
      if ((job === undefined) === (flags.all !== true)) throw new EngineError('ERR_OPTION', 'Name one job, or say --all.');
      const { dryRun = false, json = false } = flags;
      const store = await openJobStore(flags, 'existing');
      using interrupt = onInterrupt(() => {});
      const { signal } = interrupt;
      if (!dryRun) await store.probe({ signal });
      const total = { jobs: 0, objects: 0, bytes: 0 };
      for await (const where of job === undefined ? listJobs(store, flags.tenant, { signal }) : [{ tenant: flags.tenant, job }]) {
        const names: string[] = [];
        try {
          const { objects, bytes: size, kept, unknown } = await collectGarbage(store, where, {
            dryRun, signal, ...(dryRun ? { onGarbage: (key: string) => void names.push(key) } : {}),
          });
          total.jobs += 1;
          total.objects += objects;
          total.bytes += size;
          if (json) process.stdout.write(`${JSON.stringify({ job: where.job, dry_run: dryRun, objects, bytes: size, kept, unknown, ...(dryRun ? { names } : {}) })}\n`);
          else if (objects > 0 || job !== undefined) process.stdout.write(`${[`${where.job}: ${doneText(dryRun, objects, size)}, ${count(kept)} kept`, ...names.map((name) => `  ${name}`)].join('\n')}\n`);
          for (const key of unknown) process.stderr.write(`ruminate: ${safe(key, { line: true })} is none of the format's names; left alone\n`);
        } catch (error) {
          // One damaged job does not keep the others from being collected.
          if (job !== undefined || !(error instanceof EngineError) || !['ERR_CHECKPOINT', 'ERR_JOB_NOT_FOUND'].includes(error.code)) throw error;
          process.exitCode = EXIT.failed;
          if (json) process.stdout.write(`${JSON.stringify({ job: where.job, dry_run: dryRun, fault: error.message })}\n`);
          else process.stderr.write(`${failureLine(error)} (${where.job}: nothing deleted)\n`);
        }
      }
      if (job === undefined && !dryRun) await letGo(store, flags.tenant, { json, signal });
      if (job === undefined) await sweepFiles(store, flags.tenant, { dryRun, json, signal });
      if (job === undefined && !json) process.stdout.write(`${plural(total.jobs, 'job')}: ${doneText(dryRun, total.objects, total.bytes)}\n`);
    });
}

/** Of what was kept for its time. */
async function letGo(store: ObjectStore, tenant: string, { json, signal }: { readonly json: boolean; readonly signal: AbortSignal }): Promise<void> {
  const onTrouble = ({ job }: { readonly job: string }, error: unknown) => void process.stderr.write(`${failureLine(error)} (${job}: kept for now)\n`);
  const { trimmed, erased } = await expireDue(store, { tenant, signal, onTrouble });
  if (trimmed + erased === 0) return;
  if (json) process.stdout.write(`${JSON.stringify({ over: true, trimmed, erased })}\n`);
  else process.stdout.write(`kept for long enough: the KV of ${plural(trimmed, 'job')} and all of ${plural(erased, 'job')} deleted\n`);
}

/** Of uploads that nobody finished, and of batches that have ended. */
async function sweepFiles(store: ObjectStore, tenant: string, { dryRun, json, signal }: { readonly dryRun: boolean; readonly json: boolean; readonly signal: AbortSignal }): Promise<void> {
  const names: string[] = [];
  try {
    const { objects, bytes: size } = await sweepTenant(store, tenant, { dryRun, signal, ...(dryRun ? { onGarbage: (key: string) => void names.push(key) } : {}) });
    if (json) process.stdout.write(`${JSON.stringify({ files: true, dry_run: dryRun, objects, bytes: size, ...(dryRun ? { names } : {}) })}\n`);
    else if (objects > 0) process.stdout.write(`${[`files and batches: ${doneText(dryRun, objects, size)}`, ...names.map((name) => `  ${name}`)].join('\n')}\n`);
  } catch (error) {
    if (!(error instanceof EngineError) || error.code !== 'ERR_CHECKPOINT') throw error;
    process.exitCode = EXIT.failed;
    process.stderr.write(`${failureLine(error)} (files and batches: nothing deleted)\n`);
  }
}

function doneText(dryRun: boolean, objects: number, size: number): string {
  return `${plural(objects, 'object')}, ${bytes(size)} ${dryRun ? 'would be deleted' : 'deleted'}`;
}
