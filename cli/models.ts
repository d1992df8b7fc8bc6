/** `ruminate models …`: models into the cache of this machine, and out to a store. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Command } from 'commander';

import { openModelSource } from '../engine/adapters/model-source.ts';
import { openStore } from '../engine/adapters/store-url.ts';
import { EngineError } from '../engine/core/errors.ts';
import { ModelCache, onDisk } from '../engine/model/cache.ts';
import { NAME_PATTERN, type Card } from '../engine/model/card.ts';
import { cacheBytes, prune, removeModel, verifyBlobs } from '../engine/model/evict.ts';
import { referenceOf } from '../engine/model/finder.ts';
import { pull } from '../engine/model/pull.ts';
import { push } from '../engine/model/push.ts';
import { listCards } from '../engine/model/store-cards.ts';
import { modelRoots } from '../engine/model/registry.ts';
import { EXIT, onInterrupt } from './exit.ts';
import { command, durationMs, integer } from './options.ts';
import { bytes, canRedraw, paintFor, ratio, seconds, table } from './text.ts';
import { openTransfer, silentTransfer, type TransferView } from './transfer.ts';

const STOPPING = 'ruminate: stopping; what is here stays, and the same command goes on with it\n';

export function modelsCommand(): Command {
  return command('models')
    .description('pull models into the cache of this machine, push them to a store')
    .addCommand(pullCommand())
    .addCommand(pushCommand())
    .addCommand(lsCommand())
    .addCommand(rmCommand())
    .addCommand(verifyCommand())
    .addCommand(pruneCommand());
}

function pullCommand(): Command {
  return command('pull')
    .description('fetch a model into the cache, every file verified by its digest; a pull that was stopped goes on where it was')
    .argument('<source>', 's3://bucket/prefix/name[@variant][#revision], file:/…, a directory, or hf:owner/name[@revision]')
    .option('--name <name>', 'what to call it here (default: as its source does)')
    .option('--timeout <time>', 'give up after this time (default: 12h)', durationMs)
    .option('--json', 'one JSON object')
    .addHelpText('after', '\nHF_TOKEN and HF_ENDPOINT are read for hf: sources.\n\nExamples:\n  $ ruminate models pull hf:nvidia/Qwen3-8B-DMS-8x --name qwen3-8b\n  $ ruminate models pull s3://models/countdown')
    .action(async (text: string, options: { name?: string; timeout?: number; json?: boolean }) => {
      if (options.name !== undefined && !NAME_PATTERN.test(options.name)) throw new EngineError('ERR_OPTION', `--name must match ${NAME_PATTERN}; got ${JSON.stringify(options.name)}.`);
      const cache = new ModelCache();
      const { url, variant } = referenceOf(text) ?? { url: text, variant: undefined };
      const source = await openModelSource(url);
      using interrupt = onInterrupt(() => process.stderr.write(STOPPING));
      const view = viewOf(`pulling ${text}`, options);
      let pulled;
      try {
        pulled = await pull(cache, source, {
          signal: interrupt.signal,
          deadlineMs: options.timeout,
          onProgress: (progress) => view.update(progress),
          ...(variant === undefined ? {} : { variants: () => [variant] }),
        });
      } finally {
        view.close();
      }
      await using _pin = pulled.pin;
      const name = options.name ?? pulled.card.name;
      await cache.name(name, pulled.digest);
      const { digest, directory, timing, card } = pulled;
      const hides = modelRoots().find((root) => root !== cache.namesFolder && existsSync(join(root, name))) ?? null;
      if (options.json) {
        process.stdout.write(`${JSON.stringify({ name, digest, directory, revision: card.revision ?? null, hidden_by: hides, timing })}\n`);
        return;
      }
      process.stdout.write(`${name}: ${bytes(timing.bytes)}, ${bytes(timing.fetched_bytes)} of them fetched in ${seconds(timing.fetch_ms)}, the rest verified in ${seconds(timing.verify_ms)}\n`);
      if (hides !== null) process.stdout.write(`${name} is also in ${hides}, which comes first; run this one as ${directory}, or pull it with another --name\n`);
    });
}

function pushCommand(): Command {
  return command('push')
    .description('send a model directory to a store: contents that are missing there, then its model.json; nothing published is ever changed')
    .argument('<directory>', 'with model.json, or a plain Hugging Face directory or GGUF file, which gets one')
    .argument('<store>', 's3://bucket/prefix or a directory')
    .option('--name <name>', 'its name there (default: that of its model.json, or of the directory)')
    .option('--revision <revision>', 'its revision (default: that of its model.json, or a digest of the content)')
    .option('--licence <id>', 'such as Apache-2.0, for model.json')
    .option('--timeout <time>', 'give up after this time (default: 12h)', durationMs)
    .option('--json', 'one JSON object')
    .addHelpText('after', '\nExamples:\n  $ ruminate models push ./Qwen3-8B-DMS s3://models --name qwen3-8b-dms\n  $ ruminate run --model s3://models/qwen3-8b-dms "…"')
    .action(async (directory: string, address: string, options: { name?: string; revision?: string; licence?: string; timeout?: number; json?: boolean }) => {
      const store = await openStore(address);
      await store.probe();
      using interrupt = onInterrupt(() => process.stderr.write(STOPPING));
      const view = viewOf(`pushing ${directory} to ${store.url}`, options);
      let pushed;
      try {
        pushed = await push(directory, store, { ...options, deadlineMs: options.timeout, signal: interrupt.signal, onProgress: (progress) => view.update(progress) });
      } finally {
        view.close();
      }
      const { name, revision, digest, uploaded_bytes, bytes: all, unread } = pushed;
      const url = `${store.url.replace(/\/$/, '')}/${name}`;
      process.stdout.write(options.json ? `${JSON.stringify({ name, revision, digest, url, uploaded_bytes, bytes: all, unread })}\n` : `${url}#${revision}: ${bytes(all)}, ${bytes(uploaded_bytes)} of them sent\n`);
      if (options.json) return;
      for (const [variant, why] of Object.entries(unread)) process.stdout.write(`${name}@${variant} was sent, but functions without an engine cannot offer it: ${why}\n`);
    });
}

function lsCommand(): Command {
  return command('ls')
    .description('models of the cache, or of a store')
    .argument('[store]', 's3://bucket/prefix or a directory')
    .option('--json', 'one JSON array')
    .addHelpText('after', '\nExamples:\n  $ ruminate models ls\n  $ ruminate models ls s3://models --json')
    .action(async (address: string | undefined, options: { json?: boolean }) => {
      const rows = address === undefined ? await cachedRows() : await storeRows(address);
      if (options.json) {
        process.stdout.write(`${JSON.stringify(rows)}\n`);
        return;
      }
      const cells = rows.map((row) => {
        const variants = row.variants.map(({ name, compression_ratio }) => `${name} (${ratio(compression_ratio)})`).join(', ');
        return [row.name ?? '-', variants || '-', bytes(row.bytes), row.revision ?? '-', row.licence ?? 'unknown', row.source];
      });
      process.stdout.write(rows.length === 0 ? 'none\n' : `${table([['model', 'variants', 'size', 'revision', 'licence', 'from'], ...cells], paintFor(process.stdout))}\n`);
      if (address !== undefined) return;
      const cache = new ModelCache();
      process.stdout.write(`${bytes(await cacheBytes(cache))} of at most ${bytes(cache.bytesMax)} in ${cache.root}\n`);
    });
}

function rmCommand(): Command {
  return command('rm')
    .description('take a model out of the cache (of a store nothing is removed)')
    .argument('<name>', 'as `models ls` shows it, or its digest')
    .option('--json', 'one JSON object')
    .addHelpText('after', '\nExample:\n  $ ruminate models rm qwen3-8b')
    .action(async (name: string, options: { json?: boolean }) => {
      const cache = new ModelCache();
      const freed = await onDisk(cache, () => removeModel(cache, name));
      process.stdout.write(options.json ? `${JSON.stringify(freed)}\n` : `${name} removed, ${bytes(freed.bytes)} freed\n`);
    });
}

function verifyCommand(): Command {
  return command('verify')
    .description('read every file of the cache again; what is not as its digest says is removed, and fetched again when it is next needed')
    .option('--json', 'one JSON object')
    .addHelpText('after', '\nExit status: 0 if all are right, else 1.\n\nExample:\n  $ ruminate models verify')
    .action(async (options: { json?: boolean }) => {
      using interrupt = onInterrupt(() => {});
      const cache = new ModelCache();
      const { checked, bad } = await onDisk(cache, () => verifyBlobs(cache, interrupt.signal));
      process.stdout.write(options.json ? `${JSON.stringify({ checked, bad })}\n` : `${checked} files read, ${bad.length} wrong${bad.map((path) => `\nremoved ${path}`).join('')}\n`);
      if (bad.length > 0) process.exitCode = EXIT.failed;
    });
}

function pruneCommand(): Command {
  return command('prune')
    .description('remove unfinished downloads and what no model needs, then the least recently used models until the cache fits')
    .option('--bytes <n>', 'fit into this many bytes (default: RUMINATE_CACHE_BYTES, else 64 GiB)', integer)
    .option('--json', 'one JSON object')
    .addHelpText('after', '\nExample:\n  $ ruminate models prune --bytes 20000000000')
    .action(async (options: { bytes?: number; json?: boolean }) => {
      const cache = new ModelCache();
      if (options.bytes !== undefined && options.bytes < 0) throw new EngineError('ERR_OPTION', `--bytes must be 0 or more; got ${options.bytes}.`);
      const freed = await onDisk(cache, () => prune(cache, options.bytes ?? cache.bytesMax));
      process.stdout.write(options.json ? `${JSON.stringify(freed)}\n` : `${bytes(freed.bytes)} freed${freed.models.length === 0 ? '' : `, removed: ${freed.models.join(', ')}`}\n`);
    });
}

/** Progress is for people: with --json only where a person is looking. */
function viewOf(title: string, { json }: { readonly json?: boolean }): TransferView {
  const { TERM: term } = process.env;
  if (json && !canRedraw(process.stderr, term)) return silentTransfer;
  return openTransfer({ stream: process.stderr, title, now: () => performance.now(), term });
}

interface Row {
  readonly name: string | null;
  readonly variants: readonly { readonly name: string; readonly compression_ratio: number }[];
  readonly bytes: number;
  readonly revision: string | null;
  readonly licence: string | null;
  readonly source: string;
}

function factsOf(card: Card, variants: readonly string[]): Pick<Row, 'variants' | 'bytes' | 'revision' | 'licence'> {
  const files = [...(card.files ?? []), ...variants.flatMap((name) => card.variants[name]?.files ?? [])];
  return {
    variants: variants.map((name) => ({ name, compression_ratio: card.variants[name]?.compression_ratio ?? 1 })),
    bytes: [...new Map(files.map((file) => [file.sha256, file.bytes])).values()].reduce((sum, size) => sum + size, 0),
    revision: card.revision ?? null,
    licence: card.licence,
  };
}

async function storeRows(address: string): Promise<Row[]> {
  const cards = await listCards(await openStore(address, { mustExist: true }));
  return cards.map((card) => ({ name: card.name, ...factsOf(card, Object.keys(card.variants)), source: card.source }));
}

async function cachedRows(): Promise<Row[]> {
  const models = await new ModelCache().list();
  return models.reverse().flatMap(({ names, card, variants, origin }): Row[] => {
    const row = { ...factsOf(card, variants), source: origin?.url ?? 'unknown' };
    return names.length === 0 ? [{ name: null, ...row }] : names.map((name) => ({ name, ...row }));
  });
}

