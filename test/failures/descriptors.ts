/** `descriptors.ts FOLDER`: a store in a process without a file descriptor left. Prints what became of each write. */
import { closeSync, openSync } from 'node:fs';

import { openFilesystemStore } from '../../engine/adapters/filesystem.ts';
import { EngineError } from '../../engine/core/errors.ts';

const store = await openFilesystemStore(process.argv[2] ?? '');
const say = (line: string) => process.stdout.write(`${line}\n`);
const read = async () => Buffer.concat((await store.get('HEAD', { bytesMax: 100 }))?.chunks ?? []).toString();
await store.put('HEAD', [Buffer.from('before')]);

const taken: number[] = [];
try {
  for (;;) taken.push(openSync('/dev/null', 'r'));
} catch {
  // None is left.
}
const error: unknown = await store.put('HEAD', [Buffer.from('lost')]).catch((reason: unknown) => reason);
for (const fd of taken) closeSync(fd);
say(error instanceof EngineError ? `${error.code} ${error.message.includes('ulimit -n') ? 'ulimit' : error.message}` : `no error: ${String(error)}`);
const before = await read();
say((await store.put('HEAD', [Buffer.from('after')])).kind);
say(before);
say(await read());
