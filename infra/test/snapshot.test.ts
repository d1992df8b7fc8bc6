/** Each stage as it is deployed, a resource a line: what a change means is read in the difference. `npx vitest run -u` in infra writes them anew. */
import { expect, test } from 'vitest';

import { EVERY, stageNamed } from './synthesised.ts';

/** Of a bundle: they change with the product's code, not with what it is deployed as. */
const HASH = /\b[0-9a-f]{64}\b/g;
/** A version's name has the hash of its function's properties. */
const VERSION = /CurrentVersion[0-9A-F]{8}[0-9a-f]{32}/g;

test.each(EVERY)('%s', async (name) => {
  const lines = [...stageNamed(name).templates].flatMap(([stack, { Resources, Parameters = {}, Outputs = {} }]) => [
    `# ${stack}`,
    ...Object.entries(Parameters).map(([id, parameter]) => `Parameter ${id} ${JSON.stringify(parameter)}`),
    ...Object.entries(Resources).map(([id, { Type, Metadata: _, ...rest }]) => `${Type} ${id} ${JSON.stringify(rest)}`),
    ...Object.entries(Outputs).map(([id, output]) => `Output ${id} ${JSON.stringify(output)}`),
  ]);
  await expect(`${lines.join('\n').replace(HASH, 'HASH').replace(VERSION, 'CurrentVersion')}\n`).toMatchFileSnapshot(`snapshots/${name}.txt`);
});
