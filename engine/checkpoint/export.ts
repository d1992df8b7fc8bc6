/** A job out of a store, as one file that can be carried anywhere. Written as archive.ts reads it. */
import type { Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { pack, type Pack } from 'tar-stream';

import { EngineError } from '../core/errors.ts';
import { throwIfCancelled } from '../core/waiting.ts';
import { textOf } from '../kv/canonical.ts';
import { formatHead } from '../kv/head.ts';
import { HEAD, jobPrefix, specName, type JobKey } from '../kv/names.ts';
import { isMissing, manifestOf, objectsOf, readHead, readObject, readSpec, requireHead } from '../kv/read.ts';
import type { Body, ObjectStore } from '../ports/object-store.ts';
import { openChecker, type KeyOptions } from './check.ts';
import { room } from './room.ts';

export interface MoveProgress {
  readonly name: string;
  readonly doneBytes: number;
  readonly bytes: number;
}

export interface ExportOptions extends KeyOptions {
  readonly onProgress?: ((progress: MoveProgress) => void) | undefined;
}

export interface Exported {
  readonly where: JobKey;
  readonly objects: number;
  /** Of the objects, without what the tar adds. */
  readonly bytes: number;
  /** false: sealed, and there was no key to check digests and tags with. */
  readonly complete: boolean;
}

/**
 * One version of the job, every byte verified on its way; ends `output`. On failure what was written is no archive.
 * @throws EngineError ERR_JOB_CONFLICT: the job was erased, or went on meanwhile and its objects were replaced: try again;
 * ERR_JOB_NOT_FOUND, ERR_CHECKPOINT, ERR_KEY, ERR_STORE, ERR_CANCELLED; what `output` fails with.
 */
export async function exportJob(store: ObjectStore, where: JobKey, output: Writable, options: ExportOptions): Promise<Exported> {
  const { signal } = options;
  const { head, etag } = await requireHead(store, where, { signal });
  if (head.state === 'erased') throw new EngineError('ERR_JOB_CONFLICT', `The job ${where.job} was erased; there is nothing to export.`);
  if (head.join !== undefined) throw new EngineError('ERR_OPTION', `The job ${where.job} is sharded, and an archive holds one job; copy ${jobPrefix(where)} with the tools of its store, or fork the chain that you want.`);
  try {
    const tar = pack();
    const written = pipeline(tar, output, signal === undefined ? {} : { signal });
    // Whoever fails first ends the other, and its error is the one thrown.
    const packed = packJob().then((result) => { tar.finalize(); return result; }, (error: unknown) => { tar.destroy(error as Error); throw error; });
    const [result] = await Promise.all([packed, written.catch((error: unknown) => { tar.destroy(null); throw error; })]);
    return result;

    async function packJob(): Promise<Exported> {
      await add(tar, HEAD, [Buffer.from(formatHead(head))]);
      await add(tar, specName(head.spec), [Buffer.from(await readSpec(store, where, head.spec, { signal }))]);
      const body = head.manifest === null ? null : await readObject(store, where, head.manifest, { signal });
      const manifest = body === null || head.manifest === null ? null : manifestOf(textOf(body, 'the manifest'), where, head, head.manifest);
      if (body !== null && head.manifest !== null) await add(tar, head.manifest.name, body);
      using checker = await openChecker(where, manifest, options);
      const refs = objectsOf(head, manifest);
      const bytes = refs.reduce((sum, ref) => sum + ref.bytes, 0);
      let doneBytes = 0;
      for (const ref of refs) {
        throwIfCancelled(signal);
        const object = await readObject(store, where, ref, { signal });
        await checker.check(ref, object);
        await add(tar, ref.name, object);
        options.onProgress?.({ name: ref.name, doneBytes: (doneBytes += ref.bytes), bytes });
      }
      return { where, objects: refs.length, bytes, complete: checker.complete };
    }
  } catch (error) {
    throwIfCancelled(signal);
    if (isMissing(error) && (await readHead(store, where, { signal }))?.etag !== etag) {
      throw new EngineError('ERR_JOB_CONFLICT', `The job ${where.job} went on while it was exported; try again, or park it first.`, { cause: error });
    }
    throw error;
  }
}

/** The same job is the same file: no times, no owners. @throws what ended the archive meanwhile. */
async function add(tar: Pack, name: string, body: Body): Promise<void> {
  const size = body.reduce((sum, { byteLength }) => sum + byteLength, 0);
  const entry = tar.entry({ name, size, mode: 0o644, mtime: new Date(0), type: 'file' });
  // Whoever ends the archive early ends its entry, too: an error that nobody listens for would end the process.
  const ended: Error[] = [];
  entry.on('error', (error: Error) => ended.push(error));
  for (const chunk of body) {
    if (!entry.write(chunk)) await room(entry);
    if (ended[0] !== undefined) throw ended[0];
  }
  entry.end(null);
}
