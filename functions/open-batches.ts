/** Files and batches over a store, with the endpoints that lines may ask for. Not part of the app's own bundle: it needs what the engine needs. */
import { Batches } from '../engine/control/batches.ts';
import { Files } from '../engine/control/files.ts';
import type { Platform } from '../engine/control/platform.ts';
import type { Clock } from '../engine/core/clock.ts';
import type { KeyProvider } from '../engine/ports/keys.ts';
import type { ObjectStore } from '../engine/ports/object-store.ts';
import type { Outbox } from '../engine/webhook/outbox.ts';
import type { Log } from './context.ts';
import { batchEndpoints } from './openai/batch-endpoints.ts';

export interface OpenBatchesOptions {
  readonly store: ObjectStore;
  /** null: stored in the clear, as jobs are. */
  readonly keys: KeyProvider | null;
  readonly platform: Platform;
  /** Who is told that a batch has ended. Default: one over `store`. */
  readonly outbox?: Outbox | undefined;
  readonly log: Log;
  readonly clock?: Clock | undefined;
  /** As of BatchesOptions. */
  readonly waitMs?: number | undefined;
}

/** @example createApp({ platform, storage: openBatches({ store, keys, platform, log }), auth, log }) */
export function openBatches({ log, ...options }: OpenBatchesOptions): { readonly files: Files; readonly batches: Batches } {
  const files = new Files(options);
  const batches = new Batches({
    ...options, files,
    endpoints: batchEndpoints(options.platform),
    onTrouble: (batch, error) => log.warn({ batch, err: error }, 'a batch could not be moved on'),
  });
  return { files, batches };
}
