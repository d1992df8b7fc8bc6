/** The contract suite over one S3 server, for the test files that have one. */
import { afterAll, beforeAll, describe, test } from 'vitest';

import type { S3Peer } from '../helpers/s3-peer.ts';
import { PROMISES } from './object-store.ts';

/** `start` null: the server is missing, and every promise is skipped. */
export function describeS3(name: string, start: (() => Promise<S3Peer>) | null): void {
  describe.skipIf(start === null)(`S3 on ${name}`, () => {
    let peer: S3Peer | null = null;
    beforeAll(async () => { peer = (await start?.()) ?? null; });
    afterAll(async () => { await peer?.[Symbol.asyncDispose](); });
    for (const promise of PROMISES) {
      test(promise.name, async () => {
        if (peer !== null) await promise.check(peer.store());
      });
    }
  });
}
