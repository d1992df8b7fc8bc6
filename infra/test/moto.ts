/** moto, a server of AWS's APIs for tests, as a process: infra/check.mjs installs it under build/. Weak on IAM, but it has settings of buckets, stacks, quotas. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { freePort } from '../../test/helpers/port.ts';
import { ROOT } from '../lib/bundles.ts';

const READY_MS_MAX = 60_000;

export interface Moto extends AsyncDisposable {
  readonly endpoint: string;
}

/** null: it is not installed. */
export async function startMoto(): Promise<Moto | null> {
  const program = path.join(ROOT, 'build', 'infra', 'venv', 'bin', 'moto_server');
  if (!existsSync(program)) return null;
  const port = await freePort();
  const child = spawn(program, ['-H', '127.0.0.1', '-p', String(port)], { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr.on('data', (chunk: Buffer) => { said = (said + chunk.toString()).slice(-4_000); });
  const kill = () => void child.kill('SIGKILL');
  process.once('exit', kill);
  const stop = async () => {
    process.off('exit', kill);
    if (child.exitCode !== null || child.signalCode !== null) return;
    const closed = once(child, 'close');
    kill();
    await closed;
  };
  const endpoint = `http://127.0.0.1:${port}`;
  for (const startedMs = performance.now(); ; await sleep(100)) {
    if (await fetch(`${endpoint}/moto-api/`).then((response) => response.ok, () => false)) return { endpoint, [Symbol.asyncDispose]: stop };
    if (child.exitCode === null && performance.now() - startedMs < READY_MS_MAX) continue;
    await stop();
    throw new Error(`moto is not ready: ${said}`);
  }
}
