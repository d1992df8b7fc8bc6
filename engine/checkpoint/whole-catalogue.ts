/** And whether it is right, and all of it as a file: where the engine and Node are. */
import { PassThrough } from 'node:stream';

import { keyOf, readLive } from '../control/record.ts';
import type { CallerOptions } from '../control/platform.ts';
import { Catalogue, live } from './catalogue.ts';
import { exportJob } from './export.ts';
import { type Verified, verifyJob } from './verify.ts';

export class WholeCatalogue extends Catalogue {
  /** Reads every byte. */
  async verify(id: string, { tenant, signal }: CallerOptions): Promise<Verified> {
    const { store, keys } = this.options;
    return await live(store, id, tenant, { signal }, () => verifyJob(store, keyOf(tenant, id), { keys, signal }));
  }

  /**
   * One version of it as a tar, as `ruminate checkpoint import` takes it, at the pace of whoever reads. What fails on the way is thrown there,
   * and what was read is no archive.
   */
  async export(id: string, { tenant, signal }: CallerOptions): Promise<AsyncIterable<Uint8Array>> {
    const { store, keys } = this.options;
    return await live(store, id, tenant, { signal }, async () => {
      // What is seen at once need not break an answer off.
      await readLive(store, keyOf(tenant, id), { signal });
      const file = new PassThrough();
      exportJob(store, keyOf(tenant, id), file, { keys, signal }).catch((error: unknown) => file.destroy(error as Error));
      return file;
    });
  }
}
