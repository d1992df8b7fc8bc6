/** Who waits for news of one thing, thousands of them for little: no timer and no signal for each time that one waits. */
import { cancelled, throwIfCancelled } from '../core/waiting.ts';

export interface Waiter extends Disposable {
  /** Resolves at once if there was news since it was called last, else with the next. @throws EngineError ERR_CANCELLED. */
  news(): Promise<void>;
}

export class Waiters {
  readonly #all = new Set<() => void>();

  /** As if there were news already. */
  add(signal: AbortSignal | undefined): Waiter {
    let isNew = true;
    let settle: { readonly resolve: () => void; readonly reject: (error: Error) => void } | null = null;
    const wake = (): void => {
      isNew = true;
      settle?.resolve();
      settle = null;
    };
    const abort = (): void => {
      settle?.reject(cancelled());
      settle = null;
    };
    this.#all.add(wake);
    signal?.addEventListener('abort', abort, { once: true });
    return {
      async news() {
        throwIfCancelled(signal);
        if (!isNew) await new Promise<void>((resolve, reject) => (settle = { resolve, reject }));
        isNew = false;
      },
      [Symbol.dispose]: () => {
        this.#all.delete(wake);
        signal?.removeEventListener('abort', abort);
      },
    };
  }

  wake(): void {
    for (const wake of this.#all) wake();
  }
}
