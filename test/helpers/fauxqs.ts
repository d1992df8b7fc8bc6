/** fauxqs in this process, on loopback only; for SQS alone, because its S3 ignores conditions. */
import { buildApp } from 'fauxqs';

import { type SqsPeer, sqsPeer } from './sqs-peer.ts';

export async function startFauxqs(): Promise<SqsPeer> {
  const app = buildApp({ logger: false });
  // Its own start would listen on every address of this machine.
  const endpoint = await app.listen({ port: 0, host: '127.0.0.1' });
  return sqsPeer(endpoint, false, async () => void (await app.close()));
}
