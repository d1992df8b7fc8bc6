/** `descriptors.ts FOLDER`: a store in a process without a file descriptor left. Prints what became of each write. */
import { closeSync, openSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

import { openFilesystemStore } from '../../engine/adapters/filesystem.ts';
import { EngineError } from '../../engine/core/errors.ts';

const store = await openFilesystemStore(process.argv[2] ?? '');
const say = (line: string) => process.stdout.write(`${line}\n`);
const read = async () => Buffer.concat((await store.get('HEAD', { bytesMax: 100 }))?.chunks ?? []).toString();
await store.put('HEAD', [Buffer.from('before')]);

const taken: number[] = [];
// Also those that the process itself gives back a little later, as what loaded its modules does.
for (let roundsWithoutOne = 0; roundsWithoutOne < 3; await sleep(50)) {
  const before = taken.length;
  try {
    for (;;) taken.push(openSync('/dev/null', 'r'));
  } catch {
    // None is left.
  }
  roundsWithoutOne = taken.length === before ? roundsWithoutOne + 1 : 0;
}
const error: unknown = await store.put('HEAD', [Buffer.from('lost')]).catch((reason: unknown) => reason);
for (const fd of taken) closeSync(fd);
say(error instanceof EngineError ? `${error.code} ${error.message.includes('ulimit -n') ? 'ulimit' : error.message}` : `no error: ${String(error)}`);
const before = await read();
say((await store.put('HEAD', [Buffer.from('after')])).kind);
say(before);
say(await read());
