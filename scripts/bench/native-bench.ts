/** The benches that are programs of native/bench: each prints a table and, last, one JSON object. */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';

import { ROOT } from './conditions.ts';

export type Figures = Readonly<Record<string, unknown>>;

/** @returns what it measured. @throws Error with what it said. */
export async function nativeBench(name: string, args: readonly string[], { show }: { show: boolean }): Promise<Figures> {
  const exe = path.join(ROOT, 'build', 'native', 'release', name);
  if (!existsSync(exe)) throw new Error(`there is no ${name}`);
  const output = await new Promise<string>((resolve, reject) => {
    let out = '';
    const child = spawn(exe, [...args], { cwd: ROOT, stdio: ['ignore', 'pipe', 'inherit'] });
    child.stdout.on('data', (chunk: Buffer) => { out += chunk.toString(); });
    child.on('error', reject);
    child.on('close', (code) => (code === 0 ? resolve(out) : reject(new Error(`${name} ended with ${code}: ${out.slice(-500)}`))));
  });
  const lines = output.trimEnd().split('\n');
  const last = lines.pop() ?? '';
  if (show) process.stdout.write(`${lines.join('\n')}\n`);
  return JSON.parse(last) as Figures;
}
