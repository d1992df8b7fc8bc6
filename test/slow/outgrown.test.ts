/** A job that outgrows its memory keeps what it thought. */
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';

import { generate } from '../../engine/job/generate.ts';
import { resolve } from '../../engine/model/registry.ts';

const EOS = 2;
const directories: string[] = [];
afterEach(() => {
  delete process.env.RUMINATE_MEMORY_LIMIT;
  for (const directory of directories.splice(0)) rmSync(directory, { recursive: true });
});

/** The bundled CR 8 model, with a config.json that promises more than its decisions keep: nothing is ever evicted. */
function boaster(): string {
  const directory = mkdtempSync(join(tmpdir(), 'ruminate-'));
  directories.push(directory);
  cpSync(resolve('countdown@cr8', {}).directory, directory, { recursive: true });
  const path = join(directory, 'config.json');
  const config = JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>;
  writeFileSync(path, JSON.stringify({ ...config, dms_cr: 1000, dms_initial_alpha_offset: 100000 }));
  return directory;
}

test('a job that passes its admission and then outgrows its memory ends with reason memory, its tokens those of a whole run', async () => {
  const model = boaster();
  const spec = { model, prompt: '4 20 8 13 target 59', seed: 2, budget: { length: 900, width: 8 }, vote: 'none' as const, early_stop: false, sampling: { logit_bias: [[EOS, -100] as [number, number]] } };
  const whole = await generate(spec);
  process.env.RUMINATE_MEMORY_LIMIT = '10000000';
  const cut = await generate(spec);
  const ended = cut.chains.filter((chain) => chain.finish_reason === 'memory');
  expect(ended.length).toBeGreaterThan(0);
  for (const [index, chain] of cut.chains.entries()) {
    expect(chain.tokens).toEqual(whole.chains[index]?.tokens.slice(0, chain.tokens.length));
    if (chain.finish_reason === 'memory') expect(chain.tokens.length).toBeGreaterThan(10);
  }
});
