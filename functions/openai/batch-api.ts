/** Files and batches: their use cases, put on this front's store and endpoints. */
import { Batches } from '../../engine/control/batches.ts';
import { Files } from '../../engine/control/files.ts';
import type { AppOptions } from '../context.ts';
import type { Registry } from '../endpoint.ts';
import { batchOfChats } from './batch-chat.ts';
import { batches } from './batches.ts';
import { files } from './files.ts';

export function batchApi(registry: Registry, storage: NonNullable<AppOptions['storage']>): void {
  const { platform, clock, log } = registry.services;
  const store = new Files(storage);
  files(registry, store);
  batches(registry, new Batches({
    ...storage, files: store, platform, clock,
    endpoints: [batchOfChats(platform)],
    onTrouble: (batch, error) => log.warn({ batch, err: error }, 'a batch could not be moved on'),
  }));
}
