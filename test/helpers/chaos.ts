/** `npm run chaos` as a test: what it printed last, and whether everything held. */
import { spawn } from 'node:child_process';
import path from 'node:path';

import { ensurePeer } from '../../scripts/peers/build.mjs';
import { ROOT } from './setup.ts';

export interface ChaosSays {
  readonly code: number | null;
  /** All that it printed, for whoever finds it broken. */
  readonly output: string;
  readonly last: { readonly chaos: string; readonly jobs: number; readonly broken: number; readonly done: Readonly<Record<string, number>> };
}

/** Why there can be none here; null: there can. */
export function missingForChaos(): string | null {
  for (const name of ['versitygw', 'elasticmq'] as const) {
    const peer = ensurePeer(name);
    if ('missing' in peer) return peer.missing;
  }
  return null;
}

export async function chaos(...args: readonly string[]): Promise<ChaosSays> {
  const child = spawn(process.execPath, [path.join(ROOT, 'scripts', 'chaos.mjs'), ...args], { cwd: ROOT, stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => { output += chunk.toString(); });
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve));
  const lines = output.trimEnd().split('\n');
  return { code, output, last: JSON.parse(lines.findLast((line) => line.startsWith('{')) ?? '{}') as ChaosSays['last'] };
}
