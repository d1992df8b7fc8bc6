/** Stores that more than one process reaches. */
import { existsSync } from 'node:fs';

import { peerPath } from '../../scripts/peers/build.mjs';
import { startVersitygw } from '../helpers/versitygw.ts';
import { temporary } from './jobs.ts';
import type { Place } from './processes.ts';

export async function filesystemPlace(): Promise<Place & AsyncDisposable> {
  return { url: temporary(), environment: {}, [Symbol.asyncDispose]: async () => {} };
}

export const hasVersitygw = existsSync(peerPath('versitygw'));
if (!hasVersitygw) process.stdout.write('skipped: resuming on versitygw: `node scripts/peers/build.mjs versitygw` builds it\n');

export async function versitygwPlace(): Promise<Place & AsyncDisposable> {
  const peer = await startVersitygw(peerPath('versitygw'));
  return { url: `s3://${peer.bucket}/jobs`, environment: peer.environment, [Symbol.asyncDispose]: () => peer[Symbol.asyncDispose]() };
}
