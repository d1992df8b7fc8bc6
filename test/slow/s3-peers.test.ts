/** The contract suite on S3 servers: versitygw, built here where the fast suite had no binary yet, and MinIO where the soak has built it. */
import { existsSync } from 'node:fs';
import { describe, test } from 'vitest';

import { ensurePeer, peerPath } from '../../scripts/peers/build.mjs';
import { describeS3 } from '../contract/s3.ts';
import { describeS3Faults } from '../contract/s3-faults.ts';
import { startMinio } from '../helpers/minio.ts';
import type { S3Peer } from '../helpers/s3-peer.ts';
import { startVersitygw } from '../helpers/versitygw.ts';

function peer(name: 'versitygw' | 'minio', start: (binary: string) => Promise<S3Peer>): (() => Promise<S3Peer>) | null {
  const built = ensurePeer(name);
  if ('binary' in built) return () => start(built.binary);
  process.stdout.write(`skipped: S3 on ${name}: ${built.missing}\n`);
  return null;
}

const fastHadVersitygw = existsSync(peerPath('versitygw'));
if (!fastHadVersitygw) {
  const start = peer('versitygw', startVersitygw);
  describeS3('versitygw', start);
  describeS3Faults('versitygw', start);
} else {
  describe('S3 on versitygw', () => test.skip('ran in the fast suite'));
}
if (existsSync(peerPath('minio'))) {
  const minio = peer('minio', startMinio);
  describeS3('MinIO', minio);
  describeS3Faults('MinIO', minio);
} else {
  // A quarter of an hour of compiling on two cores.
  describe('S3 on MinIO', () => test.skip('is not built; `npm run test:soak` builds it'));
}
