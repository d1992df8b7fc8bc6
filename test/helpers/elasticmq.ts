/** ElasticMQ with SQS's own limits, as a process of this test. scripts/peers/build.mjs fetches it. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { GetQueueUrlCommand } from '@aws-sdk/client-sqs';

import { PeerProcess } from './peer-process.ts';
import { freePort } from './port.ts';
import { type SqsPeer, sqsPeer } from './sqs-peer.ts';

const READY_MS_MAX = 90_000;

export interface Elasticmq extends SqsPeer {
  /** Queues that are there whenever it runs, as those of SQS are. */
  readonly standing: { readonly url: string; readonly batchUrl: string; readonly deadUrl: string };
  /** Killed, gone for a while, and back without a single message. */
  restart(downMs?: number): Promise<void>;
}

/** @param jars the folder of them. */
export async function startElasticmq(jars: string): Promise<Elasticmq> {
  const folder = mkdtempSync(path.join(tmpdir(), 'ruminate-sqs-'));
  const port = await freePort();
  const config = path.join(folder, 'custom.conf');
  const queue = 'defaultVisibilityTimeout = 120 seconds, deadLettersQueue { name = "standing-dead", maxReceiveCount = 100 }';
  writeFileSync(config, `include classpath("application.conf")
node-address { protocol = http, host = "127.0.0.1", port = ${port}, context-path = "" }
rest-sqs { enabled = true, bind-port = ${port}, bind-hostname = "127.0.0.1", sqs-limits = strict }
rest-stats { enabled = false }
queues {
  standing-dead { }
  standing { ${queue} }
  standing-batch { ${queue} }
}
`);
  const endpoint = `http://127.0.0.1:${port}`;
  const url = (name: string) => `${endpoint}/000000000000/${name}`;
  let running: PeerProcess | null = null;
  const peer = sqsPeer(endpoint, true, async () => {
    await running?.[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true, force: true });
  });
  const started = {
    command: 'java', args: ['-Xmx256m', `-Dconfig.file=${config}`, '-cp', path.join(jars, '*'), 'org.elasticmq.server.Main'], readyMsMax: READY_MS_MAX,
    isReady: () => peer.client.send(new GetQueueUrlCommand({ QueueName: 'standing' })).then(() => true, () => false),
  };
  running = await PeerProcess.start(started).catch(async (error: unknown) => {
    await peer[Symbol.asyncDispose]();
    throw error;
  });
  const process = running;
  return Object.assign(peer, {
    standing: { url: url('standing'), batchUrl: url('standing-batch'), deadUrl: url('standing-dead') },
    restart: (downMs?: number) => process.restart(downMs),
  });
}
