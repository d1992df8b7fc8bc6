/** What a platform knows of the workers beside it. */
export interface WorkerState {
  readonly state: 'starting' | 'ready' | 'draining';
  /** Slices that run now. */
  readonly running: number;
  /** Of all chains of a job together, as measured last on this model (`countdown@cr8`); null: it has not run yet. */
  tokensPerSecond(model: string): number | null;
}

/** For a process that only answers requests. */
export const NO_WORKERS: WorkerState = { state: 'ready', running: 0, tokensPerSecond: () => null };
