/** What a worker in this process knows of its jobs ahead of the store. Only of exact backends: a successor produces the same tokens again. */
import type { JobKey } from '../kv/names.ts';
import type { RunReport } from '../runtime/native.ts';

export interface LiveFeed {
  /** The newest report between two steps; null: the job does not run here. */
  report(where: JobKey): RunReport | null;
  /** Resolves at the next report, when the job stops or starts running here, or after `waitMs`. @throws EngineError ERR_CANCELLED. */
  changed(where: JobKey, waitMs: number, signal?: AbortSignal): Promise<void>;
}
