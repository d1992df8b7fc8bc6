/** How a job finds its model: names and directories of this machine, and with the right adapters whatever can be fetched. */
import type { ResolvedModel } from '../model/registry.ts';
import type { PullProgress, PullTiming } from '../model/pull.ts';

export interface ModelFinder {
  /** @throws EngineError as `resolve` and `pull` do. */
  find(model: string, options: FindOptions): Promise<FoundModel>;
}

export interface FindOptions {
  readonly cr?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: PullProgress) => void) | undefined;
}

/** Stays where it is until it is disposed. */
export interface FoundModel extends AsyncDisposable {
  readonly resolved: ResolvedModel;
  /** null: it was on this machine. */
  readonly timing: PullTiming | null;
}
