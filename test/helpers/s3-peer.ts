/** A real S3 server as a process of this test: on a free port, over a folder of its own, gone when the test is over. */
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3';

import { S3Store, type S3StoreOptions } from '../../engine/adapters/s3.ts';
import { PeerProcess } from './peer-process.ts';
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
  /** Killed, gone for a while, and back with what it had stored. */
  restart(downMs?: number): Promise<void>;
}

export interface S3Server {
  readonly binary: string;
  readonly arguments: (port: number, data: string) => readonly string[];
  readonly environment: Readonly<Record<string, string>>;
}

/** @param folder of its objects; who gives one keeps it. Default: a fresh one, gone afterwards. */
export async function startS3Peer(server: S3Server, folder?: string): Promise<S3Peer> {
  const data = folder ?? mkdtempSync(path.join(tmpdir(), 'ruminate-s3-'));
  const remove = () => {
    if (folder === undefined) rmSync(data, { recursive: true, force: true });
  };
  const port = await freePort();
  const endpoint = `http://127.0.0.1:${port}`;
  const client = s3Client(endpoint);
  const running = await PeerProcess.start({
    command: server.binary, args: server.arguments(port, data), env: server.environment, readyMsMax: READY_MS_MAX,
    isReady: () => client.send(new CreateBucketCommand({ Bucket: BUCKET })).then(() => true, (error: Error) => error.name === 'BucketAlreadyOwnedByYou'),
  }).catch((error: unknown) => {
    remove();
    throw error;
  });
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
    restart: (downMs) => running.restart(downMs),
    async [Symbol.asyncDispose]() {
      client.destroy();
      await running[Symbol.asyncDispose]();
      remove();
    },
  };
}

export function s3Client(endpoint: string): S3Client {
  return new S3Client({ endpoint, forcePathStyle: true, region: 'us-east-1', credentials: CREDENTIALS, maxAttempts: 1 });
}
