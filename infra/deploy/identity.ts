/** What the engine of this checkout and the models of the stage are, by value: asked of the engine itself, with one token of each. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';

import { ROOT } from '../lib/bundles.ts';
import type { Context } from './context.ts';
import type { Identity } from './rollout.ts';

const RUN_MS_MAX = 300_000;

/** @throws Error: the engine is not built, or a model is not here. */
export async function localIdentity({ options: { config } }: Pick<Context, 'options'>): Promise<Identity> {
  const store = mkdtempSync(path.join(os.tmpdir(), 'ruminate-identity-'));
  try {
    const found = config.models.flatMap((model) => variantsOf(model)).map((variant, i) => identityOf(variant, store, `probe-${i}`));
    const [first] = found;
    if (first === undefined) throw new Error('The stage has no model.');
    return { numericsId: first.numericsId, layoutId: first.layoutId, modelIds: [...new Set(found.map(({ modelId }) => modelId))], formats: first.formats };
  } finally {
    rmSync(store, { recursive: true, force: true });
  }
}

function variantsOf(model: string): readonly string[] {
  const folder = path.join(ROOT, 'models', model);
  const variants = existsSync(folder) ? readdirSync(folder, { withFileTypes: true }).filter((entry) => entry.isDirectory() && existsSync(path.join(folder, entry.name, 'config.json'))).map(({ name }) => `${model}@${name}`) : [];
  return variants.length === 0 ? [model] : variants;
}

interface Probed {
  readonly numericsId: string;
  readonly layoutId: string;
  readonly modelId: string;
  readonly formats: readonly string[];
}

function identityOf(model: string, store: string, job: string): Probed {
  ruminate(['run', '1', '--model', model, '--length', '1', '--store', store, '--job', job, '--json']);
  const { manifest, reads } = JSON.parse(ruminate(['checkpoint', 'inspect', job, '--store', store, '--json'])) as { readonly manifest: Omit<Probed, 'formats'>; readonly reads: readonly string[] };
  return { ...manifest, formats: reads };
}

function ruminate(args: readonly string[]): string {
  const { status, stdout, stderr } = spawnSync(process.execPath, [path.join(ROOT, 'bin', 'ruminate.mjs'), ...args], { encoding: 'utf8', timeout: RUN_MS_MAX });
  if (status !== 0) throw new Error(`ruminate ${args.join(' ')}: ${stderr.trim()}`);
  return stdout;
}
