import type { Speed } from './rates.ts';

/** What a platform knows of the workers beside it. */
export interface WorkerState {
  readonly state: 'starting' | 'ready' | 'draining';
  /** Slices that run now. */
  readonly running: number;
  /** Of a job with so many chains, all of them together, on this model (`countdown@cr8`); null: it has neither run nor been probed yet. */
  speed(model: string, width: number): Speed | null;
}

/** For a process that only answers requests. */
export const NO_WORKERS: WorkerState = { state: 'ready', running: 0, speed: () => null };
