/** At most so many at a time. */
export class Gate {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(width: number) {
    this.#free = width;
  }

  /** @example const body = await gate.pass(() => source.read(file, range)); */
  async pass<T>(work: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free--;
    else await new Promise<void>((enter) => this.#waiting.push(enter));
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#free++;
      else next();
    }
  }
}

/**
 * Waits for all of them; the first failure aborts the signal that each was given, and is thrown when none runs any more.
 * @example await allOrNone(signal, files, (file, signal) => fetchFile(file, signal));
 */
export async function allOrNone<T, R>(signal: AbortSignal, items: readonly T[], work: (item: T, signal: AbortSignal) => Promise<R>): Promise<R[]> {
  const failed = new AbortController();
  const either = AbortSignal.any([signal, failed.signal]);
  let first: { readonly error: unknown } | null = null;
  const settled = await Promise.all(items.map(async (item) => {
    try {
      return { value: await work(item, either) };
    } catch (error) {
      first ??= { error };
      failed.abort();
      return null;
    }
  }));
  if (first !== null) throw (first as { readonly error: unknown }).error;
  return settled.flatMap((result) => (result === null ? [] : [result.value]));
}
