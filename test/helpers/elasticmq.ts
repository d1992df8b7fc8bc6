/** ElasticMQ with SQS's own limits, as a process of this test. scripts/peers/build.mjs fetches it. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { freePort } from './port.ts';
import { type SqsPeer, sqsPeer } from './sqs-peer.ts';

const READY_MS_MAX = 90_000;

/** @param jars the folder of them. */
export async function startElasticmq(jars: string): Promise<SqsPeer> {
  const folder = mkdtempSync(path.join(tmpdir(), 'ruminate-sqs-'));
  const port = await freePort();
  const config = path.join(folder, 'custom.conf');
  writeFileSync(config, `include classpath("application.conf")
node-address { protocol = http, host = "127.0.0.1", port = ${port}, context-path = "" }
rest-sqs { enabled = true, bind-port = ${port}, bind-hostname = "127.0.0.1", sqs-limits = strict }
rest-stats { enabled = false }
`);
  const child = spawn('java', ['-Xmx256m', `-Dconfig.file=${config}`, '-cp', path.join(jars, '*'), 'org.elasticmq.server.Main'], { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => { output = (output + chunk.toString()).slice(-4_000); });
  // A test process that ends without disposing takes its server along.
  const kill = () => void child.kill('SIGKILL');
  process.once('exit', kill);
  const stop = async () => {
    process.off('exit', kill);
    if (child.exitCode === null && child.signalCode === null) {
      const closed = once(child, 'close');
      kill();
      await closed;
    }
    rmSync(folder, { recursive: true, force: true });
  };
  const peer = sqsPeer(`http://127.0.0.1:${port}`, true, stop);
  for (const startedMs = performance.now(); ; await sleep(100)) {
    if (await peer.urls(1).then(() => true, () => false)) return peer;
    const isLate = performance.now() - startedMs > READY_MS_MAX;
    if (child.exitCode === null && !isLate) continue;
    await peer[Symbol.asyncDispose]();
    throw new Error(`ElasticMQ ${isLate ? 'is not ready' : 'ended'}: ${output}`);
  }
}
