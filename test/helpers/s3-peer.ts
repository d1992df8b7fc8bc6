/** A real S3 server as a process of this test: on a free port, over a folder of its own, gone when the test is over. */
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3';

import { S3Store, type S3StoreOptions } from '../../engine/adapters/s3.ts';
import { freePort } from './port.ts';

export const CREDENTIALS = { accessKeyId: 'test', secretAccessKey: 'testtest' };
export const BUCKET = 'ruminate';
const READY_MS_MAX = 60_000;

export interface S3Peer extends AsyncDisposable {
  readonly endpoint: string;
  readonly bucket: string;
  /** Environment with which `openStore` and the AWS SDK reach it. */
  readonly environment: Readonly<Record<string, string>>;
  /** A client without our adapter, for the tests' own eyes. */
  readonly client: S3Client;
  /** Our store under a fresh prefix of the bucket. */
  store(changes?: Partial<S3StoreOptions>): S3Store;
}

export interface S3Server {
  readonly binary: string;
  readonly arguments: (port: number, data: string) => readonly string[];
  readonly environment: Readonly<Record<string, string>>;
}

export async function startS3Peer(server: S3Server): Promise<S3Peer> {
  const data = mkdtempSync(path.join(tmpdir(), 'ruminate-s3-'));
  const port = await freePort();
  const child = spawn(server.binary, server.arguments(port, data), { env: { ...process.env, ...server.environment }, stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => { output = (output + chunk.toString()).slice(-4_000); });
  // A test process that ends without disposing takes its server along.
  const kill = () => void child.kill('SIGKILL');
  process.once('exit', kill);
  const endpoint = `http://127.0.0.1:${port}`;
  const client = s3Client(endpoint);
  const stop = async () => {
    process.off('exit', kill);
    client.destroy();
    if (child.exitCode === null && child.signalCode === null) {
      const closed = once(child, 'close');
      kill();
      await closed;
    }
    rmSync(data, { recursive: true, force: true });
  };
  try {
    for (const startedMs = performance.now(); ; await sleep(50)) {
      if (child.exitCode !== null) throw new Error(`${server.binary} ended: ${output}`);
      if (await client.send(new CreateBucketCommand({ Bucket: BUCKET })).then(() => true, () => false)) break;
      if (performance.now() - startedMs > READY_MS_MAX) throw new Error(`${server.binary} is not ready: ${output}`);
    }
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    endpoint,
    bucket: BUCKET,
    environment: {
      RUMINATE_S3_ENDPOINT: endpoint, RUMINATE_S3_PATH_STYLE: '1', AWS_REGION: 'us-east-1',
      AWS_ACCESS_KEY_ID: CREDENTIALS.accessKeyId, AWS_SECRET_ACCESS_KEY: CREDENTIALS.secretAccessKey,
    },
    client,
    store: (changes = {}) => new S3Store({
      bucket: BUCKET, prefix: `t/${randomBytes(6).toString('hex')}`, endpoint, pathStyle: true, region: 'us-east-1', credentials: CREDENTIALS, ...changes,
    }),
    [Symbol.asyncDispose]: stop,
  };
}

export function s3Client(endpoint: string): S3Client {
  return new S3Client({ endpoint, forcePathStyle: true, region: 'us-east-1', credentials: CREDENTIALS, maxAttempts: 1 });
}
