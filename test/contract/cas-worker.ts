/**
 * A process that counts in one object of a directory store, by compare-and-swap, until it is killed or has done enough:
 *   node --import tsx cas-worker.ts DIRECTORY NAME INCREMENTS
 * The object is {NAME: increments}; every acknowledged increment is a line on stdout.
 */
import { writeSync } from 'node:fs';

import { openFilesystemStore } from '../../engine/adapters/filesystem.ts';

const [directory = '', name = '', increments = '0'] = process.argv.slice(2);
const store = await openFilesystemStore(directory);
for (let done = 0; done < Number(increments); ) {
  const found = await store.get('count', { bytesMax: 1 << 20 });
  const counts = found === null ? {} : (JSON.parse(Buffer.concat(found.chunks).toString()) as Record<string, number>);
  const next = Buffer.from(JSON.stringify({ ...counts, [name]: (counts[name] ?? 0) + 1 }));
  const condition = found === null ? ({ kind: 'if_absent' } as const) : ({ kind: 'if_match', etag: found.etag } as const);
  const outcome = await store.put('count', [next], { condition });
  if (outcome.kind === 'written') {
    writeSync(1, '+\n');
    done++;
  } else if (outcome.kind === 'unknown') {
    writeSync(1, '?\n');
  }
}
