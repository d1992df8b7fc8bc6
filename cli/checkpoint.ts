/** `ruminate checkpoint …`: what is stored, what it costs, whether it is right, and moving it from store to store. */
import { createInterface } from 'node:readline/promises';
import type { Command } from 'commander';

import { EngineError } from '../engine/core/errors.ts';
import { PRICES } from '../engine/core/prices.ts';
import { eraseJob } from '../engine/kv/erase.ts';
import { MANIFEST_FORMATS } from '../engine/kv/manifest.ts';
import { anatomyOf } from '../engine/checkpoint/anatomy.ts';
import { monthlyCost, surveyJobs, type StoredJob } from '../engine/checkpoint/survey.ts';
import { anatomyText } from './anatomy.ts';
import { exportCommand, importCommand } from './checkpoint-move.ts';
import { verifyCommand } from './checkpoint-verify.ts';
import { onInterrupt } from './exit.ts';
import { command, decimal, integer } from './options.ts';
import { openJobStore, storeOptions, type StoreFlags } from './stored.ts';
import { ago, bytes, count, dollars, paintFor, plural, table } from './text.ts';

const ROWS_MAX = 1000;

export function checkpointCommand(): Command {
  return command('checkpoint')
    .description('look at stored jobs, verify, move and remove them')
    .addCommand(lsCommand())
    .addCommand(inspectCommand())
    .addCommand(verifyCommand())
    .addCommand(exportCommand())
    .addCommand(importCommand())
    .addCommand(rmCommand());
}

interface LsFlags extends StoreFlags {
  readonly all?: boolean;
  readonly after?: string;
  readonly limit: number;
  readonly pricePerGbMonth: number;
  readonly json?: boolean;
}

function lsCommand(): Command {
  return storeOptions(command('ls'))
    .description('stored jobs: how far each is, and what it costs a month')
    .option('--all', 'erased jobs too, of which a tombstone is left')
    .option('--after <job>', 'go on after this one: the last of the page before')
    .option('--limit <n>', `rows of a page (default: ${ROWS_MAX})`, integer, ROWS_MAX)
    .option('--price-per-gb-month <usd>', `for 2^30 bytes of storage (default: ${PRICES.s3.gibMonth}, S3 Standard's list price in us-east-1)`, decimal, PRICES.s3.gibMonth)
    .option('--json', 'one JSON object a line: jobs, then a total')
    .addHelpText('after', '\nBytes are all that lies under a job, garbage included; `ruminate gc` removes that.\n\nExamples:\n  $ ruminate checkpoint ls --store s3://kv-bucket/jobs\n  $ ruminate checkpoint ls --json | jq -s "map(.bytes // 0) | add"')
    .action(async (flags: LsFlags) => {
      if (!(flags.limit >= 1 && flags.limit <= 100_000)) throw new EngineError('ERR_OPTION', `--limit must be from 1 to 100000; got ${flags.limit}.`);
      if (!(flags.pricePerGbMonth >= 0 && flags.pricePerGbMonth < 1e6)) throw new EngineError('ERR_OPTION', `--price-per-gb-month must be 0 or more; got ${flags.pricePerGbMonth}.`);
      const store = await openJobStore(flags, 'existing');
      using interrupt = onInterrupt(() => {});
      const rows: Row[] = [];
      const total = { jobs: 0, objects: 0, bytes: 0, garbage_bytes: 0 };
      let next: string | null = null;
      for await (const stored of surveyJobs(store, flags.tenant, { after: flags.after, signal: interrupt.signal })) {
        if (stored.content?.head.state === 'erased' && flags.all !== true) continue;
        if (total.jobs === flags.limit) {
          next = rows.at(-1)?.job ?? null;
          break;
        }
        const row = rowOf(stored, flags.pricePerGbMonth);
        rows.push(row);
        total.jobs += 1;
        total.objects += row.objects;
        total.bytes += row.bytes;
        total.garbage_bytes += row.garbage_bytes ?? 0;
      }
      const usd = monthlyCost(total.bytes, flags.pricePerGbMonth);
      if (flags.json === true) {
        process.stdout.write([...rows, { total: { ...total, usd_month: usd, price_per_gb_month: flags.pricePerGbMonth, next } }].map((line) => `${JSON.stringify(line)}\n`).join(''));
        return;
      }
      process.stdout.write(rows.length === 0 ? 'none\n' : `${tableOf(rows)}\n`);
      const waste = total.garbage_bytes === 0 ? '' : `, ${bytes(total.garbage_bytes)} of them garbage (\`ruminate gc\`)`;
      process.stdout.write(`${plural(total.jobs, 'job')}, ${bytes(total.bytes)}${waste}: ${dollars(usd)} a month at ${flags.pricePerGbMonth} $/GB in ${store.url}\n`);
      if (next !== null) process.stdout.write(`more: --after ${next}\n`);
    });
}

interface Row {
  readonly job: string;
  readonly state: string | null;
  readonly model: string | null;
  readonly tokens: number | null;
  readonly width: number | null;
  readonly objects: number;
  readonly bytes: number;
  readonly garbage_bytes: number | null;
  readonly written_ms: number | null;
  readonly usd_month: number;
  readonly fault: string | null;
}

function rowOf({ job, objects, bytes: size, writtenAtMs, content, fault }: StoredJob, price: number): Row {
  return {
    job,
    state: content?.head.state ?? null,
    model: content?.model ?? null,
    tokens: content?.tokens ?? null,
    width: content?.width ?? null,
    objects,
    bytes: size,
    garbage_bytes: content === null ? null : Math.max(0, size - content.neededBytes),
    written_ms: writtenAtMs === null ? null : Math.round(writtenAtMs),
    usd_month: monthlyCost(size, price),
    fault: fault?.message ?? null,
  };
}

function tableOf(rows: readonly Row[]): string {
  const paint = paintFor(process.stdout);
  const nowMs = Date.now();
  const cells = rows.map((row) => [
    row.job, row.state ?? 'unreadable', row.model ?? '-', row.tokens === null ? '-' : count(row.tokens), row.width === null ? '-' : count(row.width),
    bytes(row.bytes), row.written_ms === null ? '-' : ago(nowMs - row.written_ms), dollars(row.usd_month),
  ]);
  const lines = table([['job', 'state', 'model', 'tokens', 'width', 'stored', 'written', 'a month'], ...cells], paint).split('\n');
  return [lines[0], ...rows.flatMap((row, i) => [lines[i + 1], ...(row.fault === null ? [] : [`  ${paint.red(row.fault)}`])])].join('\n');
}

function inspectCommand(): Command {
  return storeOptions(command('inspect'))
    .description('one job: its head, slices, chains and where each can be forked, identities, and what is garbage')
    .argument('<job>')
    .option('--json', 'one JSON object')
    .addHelpText('after', '\nExamples:\n  $ ruminate checkpoint inspect sums\n  $ ruminate checkpoint inspect sums --json | jq .manifest.chains')
    .action(async (job: string, flags: StoreFlags & { json?: boolean }) => {
      const store = await openJobStore(flags, 'existing');
      using interrupt = onInterrupt(() => {});
      const anatomy = await anatomyOf(store, { tenant: flags.tenant, job }, { signal: interrupt.signal });
      if (flags.json === true) {
        // A wrapped key is no secret, and nobody's business either.
        const { manifest, spec, ...rest } = anatomy;
        const shown = manifest === null ? null : { ...manifest, keys: manifest.keys === null ? null : Object.keys(manifest.keys) };
        process.stdout.write(`${JSON.stringify({ ...rest, reads: MANIFEST_FORMATS, manifest: shown, spec: spec === null ? null : { ...spec, prompt: spec.prompt?.length ?? null } })}\n`);
        return;
      }
      process.stdout.write(anatomyText(anatomy, { paint: paintFor(process.stdout), columns: process.stdout.columns ?? 100, nowMs: Date.now() }));
    });
}

function rmCommand(): Command {
  return storeOptions(command('rm'))
    .description('erase a job for good: its keys first, then every byte; a tombstone keeps its name from being used again')
    .argument('<job>')
    .option('--yes', 'do not ask')
    .option('--json', 'one JSON object')
    .addHelpText('after', '\nA running job is stopped: its owner writes nothing more.\n\nExamples:\n  $ ruminate checkpoint rm sums\n  $ ruminate checkpoint rm sums --store s3://kv-bucket/jobs --yes')
    .action(async (job: string, flags: StoreFlags & { yes?: boolean; json?: boolean }) => {
      const store = await openJobStore(flags, 'existing');
      using interrupt = onInterrupt(() => {});
      const { signal } = interrupt;
      if (flags.yes !== true && !(await isSure(`erase ${job} of ${flags.tenant} in ${store.url} for good? [y/N] `, signal))) {
        process.stderr.write('ruminate: nothing erased\n');
        return;
      }
      await store.probe({ signal });
      const { head, objects, bytes: size } = await eraseJob(store, { tenant: flags.tenant, job }, { signal });
      process.stdout.write(flags.json === true ? `${JSON.stringify({ job, state: head.state, objects, bytes: size })}\n` : `${job} erased: ${plural(objects, 'object')}, ${bytes(size)}\n`);
    });
}

async function isSure(question: string, signal: AbortSignal): Promise<boolean> {
  if (process.stdin.isTTY !== true) throw new EngineError('ERR_OPTION', 'There is nobody to ask; say --yes.');
  const lines = createInterface({ input: process.stdin, output: process.stderr });
  // The terminal is in raw mode meanwhile, and sends a character instead of a signal.
  lines.on('SIGINT', () => process.emit('SIGINT'));
  try {
    return /^y(es)?$/i.test((await lines.question(question, { signal })).trim());
  } catch (cause) {
    if (!signal.aborted) throw cause;
    throw new EngineError('ERR_CANCELLED', 'Nothing was erased.', { cause });
  } finally {
    lines.close();
  }
}
