/**
 * A process that pulls: `tsx pull-child.ts <cache> <source> <range bytes> <pause ms> [hold | <most ranges>]`. Prints `ready` before it begins,
 * `part` and its bytes after every range, and its result as JSON; with `hold` it keeps the model pinned until it is killed, and after the most
 * ranges it gets no further.
 */
import { setTimeout as sleep } from 'node:timers/promises';

import { openModelSource } from '../../engine/adapters/model-source.ts';
import { pull } from '../../engine/model/pull.ts';
import type { ModelSource } from '../../engine/ports/model-source.ts';
import { cacheIn } from './models.ts';

const [root = '', url = '', rangeBytes = '', pauseMs = '0', mode] = process.argv.slice(2);
const most = mode === 'hold' ? Infinity : Number(mode || Infinity);
let begun = 0;
const source = await openModelSource(url);
const paced: ModelSource = {
  url: source.url,
  list: (options) => source.list(options),
  async read(file, range, options) {
    if (begun++ >= most) await sleep(600_000);
    const body = await source.read(file, range, options);
    if (pauseMs !== '0') await sleep(Number(pauseMs));
    process.stdout.write(`part ${range.bytes}\n`);
    return body;
  },
};
process.stdout.write('ready\n');
const { timing, directory, pin } = await pull(cacheIn(root), paced, { rangeBytes: Number(rangeBytes) });
process.stdout.write(`${JSON.stringify({ timing, directory })}\n`);
if (mode === 'hold') await sleep(600_000);
await pin[Symbol.asyncDispose]();
