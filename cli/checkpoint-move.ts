/** `ruminate checkpoint export | import`: a job as one file. */
import { randomBytes } from 'node:crypto';
import { createReadStream, write as writeCallback } from 'node:fs';
import { link, open, rename, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { Writable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import type { Command } from 'commander';

import { keyProviderOf } from '../engine/adapters/key-url.ts';
import { EngineError } from '../engine/core/errors.ts';
import { exportJob, type Exported, type ExportOptions } from '../engine/checkpoint/export.ts';
import { importJob } from '../engine/checkpoint/import.ts';
import type { JobKey } from '../engine/kv/names.ts';
import type { ObjectStore } from '../engine/ports/object-store.ts';
import { onInterrupt } from './exit.ts';
import { openMeter } from './meter.ts';
import { command } from './options.ts';
import { openJobStore, storeOptions, type StoreFlags } from './stored.ts';
import { bytes, plural } from './text.ts';

const write = promisify(writeCallback);
const STDOUT = 1;
/** A pipe that takes nothing now, and does not say when it will. */
const FULL_PIPE_MS = 10;
const NO_KEY = ' (sealed, and no key is set: digests and encryption were not checked)';

export function exportCommand(): Command {
  return storeOptions(command('export'))
    .description('one job as one file, a tar, every byte verified on its way; nothing in the store changes')
    .argument('<job>')
    .argument('<file>', 'to write, or - for standard output; a file that is there is not overwritten')
    .option('--force', 'overwrite it')
    .option('--json', 'one JSON object (on stderr if the file goes to standard output)')
    .addHelpText('after', '\nA running job is exported as its last commit has it; park it first if it goes on too fast.\nWhat is encrypted stays encrypted.\n\nExamples:\n  $ ruminate checkpoint export sums sums.tar\n  $ ruminate checkpoint export sums - | ssh elsewhere "cat > sums.tar"')
    .action(async (job: string, file: string, flags: StoreFlags & { force?: boolean; json?: boolean }) => {
      const store = await openJobStore(flags, 'existing');
      const keys = await keyProviderOf();
      using interrupt = onInterrupt(() => {});
      using meter = openMeter(process.stderr, `exporting ${job}`);
      const options = { keys, signal: interrupt.signal, onProgress: ({ name, doneBytes, bytes: all }: { name: string; doneBytes: number; bytes: number }) => meter.update(name, doneBytes, all) };
      const where = { tenant: flags.tenant, job };
      const exported = file === '-' ? await toStdout(store, where, options) : await toFile(store, where, file, flags.force === true, options);
      meter[Symbol.dispose]();
      const { objects, bytes: size, complete } = exported;
      const stream = file === '-' ? process.stderr : process.stdout;
      stream.write(flags.json === true ? `${JSON.stringify({ job, file, objects, bytes: size, complete })}\n` : `${job}: ${plural(objects, 'object')}, ${bytes(size)} in ${file}${complete ? '' : NO_KEY}\n`);
    });
}

async function toStdout(store: ObjectStore, where: JobKey, options: ExportOptions): Promise<Exported> {
  if (process.stdout.isTTY === true) throw new EngineError('ERR_OPTION', 'A tar is nothing for a terminal: name a file, or pipe it.');
  // By its number: `process.stdout` stops the thread while a pipe is full, and then no Ctrl-C is heard.
  const output = new Writable({ write: (chunk: Uint8Array, _, done) => void writeAll(STDOUT, chunk).then(() => done(), done) });
  return await exportJob(store, where, output, options).catch((cause: unknown) => { throw outputError(cause, 'standard output'); });
}

async function writeAll(descriptor: number, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.byteLength;) {
    try {
      at += (await write(descriptor, bytes, at)).bytesWritten;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
      await sleep(FULL_PIPE_MS);
    }
  }
}

function outputError(cause: unknown, file: string): unknown {
  const { code } = cause as NodeJS.ErrnoException;
  if (cause instanceof EngineError || code === undefined) return cause;
  return new EngineError('ERR_OUTPUT', code === 'EPIPE' ? `The reader of ${file} went away; what it has is no whole job.` : `${file} cannot be written (${code}).`, { cause });
}

/** Under another name until it is whole, so that a file with this name is an archive, whatever happens. */
async function toFile(store: ObjectStore, where: JobKey, file: string, force: boolean, options: ExportOptions): Promise<Exported> {
  if (!force && (await stat(file).then(() => true, () => false))) throw new EngineError('ERR_OPTION', `${file} is there already; --force overwrites it.`);
  const draft = path.join(path.dirname(file), `.${path.basename(file)}.${randomBytes(6).toString('hex')}`);
  try {
    // Opened before anything is asked of the store, and closed by the stream.
    const exported = await exportJob(store, where, (await open(draft, 'wx')).createWriteStream(), options);
    const written = await open(draft, 'r+');
    await written.sync().finally(() => written.close());
    // A link refuses a file that came meanwhile.
    await (force ? rename(draft, file) : link(draft, file));
    return exported;
  } catch (cause) {
    throw outputError(cause, file);
  } finally {
    await rm(draft, { force: true });
  }
}

export function importCommand(): Command {
  return storeOptions(command('import'))
    .description('a job out of a file that `export` wrote; everything is verified before anything is written')
    .argument('<file>')
    .option('--as <job>', 'its name here (default: as in the file)')
    .option('--json', 'one JSON object')
    .addHelpText('after', '\nThe job is parked here: `ruminate resume` goes on with it. One that had ended has ended.\n\nExamples:\n  $ ruminate checkpoint import sums.tar --store s3://kv-bucket/jobs\n  $ ruminate checkpoint import sums.tar --as sums-again')
    .action(async (file: string, flags: StoreFlags & { as?: string; json?: boolean }) => {
      const store = await openJobStore(flags, 'new');
      const keys = await keyProviderOf();
      const found = await stat(file).catch((cause: NodeJS.ErrnoException) => { throw new EngineError('ERR_OPTION', `${file} cannot be read (${cause.code ?? cause.message}).`, { cause }); });
      if (!found.isFile()) throw new EngineError('ERR_OPTION', `${file} is no file; it is read twice, so a pipe will not do.`);
      using interrupt = onInterrupt(() => {});
      const { signal } = interrupt;
      await store.probe({ signal });
      using meter = openMeter(process.stderr, `importing ${file}`);
      const { head, objects, bytes: size, complete } = await importJob(store, flags.tenant, () => createReadStream(file), {
        keys, signal, as: flags.as, onProgress: (phase, { name, doneBytes, bytes: all }) => meter.update(`${phase} ${name}`, doneBytes, all),
      });
      meter[Symbol.dispose]();
      process.stdout.write(flags.json === true ? `${JSON.stringify({ job: head.job, state: head.state, objects, bytes: size, complete })}\n` : `${head.job}: ${head.state}, ${plural(objects, 'object')}, ${bytes(size)} in ${store.url}${complete ? '' : NO_KEY}\n`);
    });
}
