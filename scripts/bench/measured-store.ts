/** A store that is watched: what went into it by kind, and how long it kept its callers waiting. */
import { parseName } from '../../engine/kv/names.ts';
import type { Body, CallOptions, GetOptions, ObjectStore, PutOptions } from '../../engine/ports/object-store.ts';

export const KINDS = ['segment', 'tail', 'journal', 'manifest', 'head', 'spec'] as const;
export type Kind = (typeof KINDS)[number];
export type BytesByKind = Readonly<Record<Kind, number>>;

export interface MeasuredStore extends ObjectStore {
  readonly written: BytesByKind;
  /** At least one read was on its way. */
  readonly readMs: number;
}

export interface MeasureOptions {
  /** Pages and tails look as if they were gone: whoever resumes computes them again from the journals. */
  readonly hidePages?: boolean;
}

export function measured(store: ObjectStore, { hidePages = false }: MeasureOptions = {}): MeasuredStore {
  const written = zero();
  let [reading, since, readMs] = [0, 0, 0];
  return {
    url: store.url,
    written,
    get readMs() { return readMs; },
    async get(key: string, options: GetOptions) {
      const kind = kindOf(key);
      if (hidePages && (kind === 'segment' || kind === 'tail')) return null;
      if (reading++ === 0) since = performance.now();
      try {
        return await store.get(key, options);
      } finally {
        if (--reading === 0) readMs += performance.now() - since;
      }
    },
    async put(key: string, body: Body, options?: PutOptions) {
      const outcome = await store.put(key, body, options);
      const kind = kindOf(key);
      if (kind !== null) written[kind] += body.reduce((sum, chunk) => sum + chunk.byteLength, 0);
      return outcome;
    },
    head: (key: string, options?: CallOptions) => store.head(key, options),
    copy: (from: string, to: string, options?: CallOptions) => store.copy(from, to, options),
    list: (prefix: string, options?: CallOptions) => store.list(prefix, options),
    delete: (keys: readonly string[], options?: CallOptions) => store.delete(keys, options),
    probe: (options?: CallOptions) => store.probe(options),
  };
}

/** What a store holds under a prefix, by kind. */
export async function stored(store: ObjectStore, prefix: string): Promise<BytesByKind> {
  const held = zero();
  for await (const { key, bytes } of store.list(prefix)) {
    const kind = kindOf(key);
    if (kind !== null) held[kind] += bytes;
  }
  return held;
}

/** Keys are kv/<tenant>/<job>/<name>. */
function kindOf(key: string): Kind | null {
  return parseName(key.split('/').slice(3).join('/'))?.kind ?? null;
}

function zero(): Record<Kind, number> {
  return { segment: 0, tail: 0, journal: 0, manifest: 0, head: 0, spec: 0 };
}
