/** `seq` of protocol_traces.md: no head, manifest N+1 is created if absent, the highest number is current. Here to be found broken. */
import { EngineError } from '../../engine/core/errors.ts';
import type { ObjectStore } from '../../engine/ports/object-store.ts';
import type { Owner, Play } from './play.ts';
import type { View } from './watch.ts';

interface Numbered {
  readonly epoch: number;
  readonly names: readonly string[];
}

const LIMIT = { bytesMax: 1 << 20 };
const numberOf = (key: string) => Number(/\/n\/(\d+)$/.exec(key)?.[1] ?? -1);

export function numberedPlay(prefix: string): Play {
  const outside = { epoch: 0 };

  async function current(store: ObjectStore): Promise<{ readonly n: number; readonly manifest: Numbered }> {
    let n = 0;
    for await (const { key } of store.list(prefix)) n = Math.max(n, numberOf(key));
    if (n === 0) return { n, manifest: { epoch: 0, names: [] } };
    const found = await store.get(`${prefix}n/${n}`, LIMIT);
    return { n, manifest: JSON.parse(Buffer.concat(found?.chunks ?? []).toString()) as Numbered };
  }

  async function take({ store }: { readonly store: ObjectStore }): Promise<Owner> {
    const epoch = ++outside.epoch;
    const acked: string[] = [];
    let { n, manifest } = await current(store);
    const commit = async (step: number) => {
      const name = `${prefix}j/${n}/${epoch}-${step}`;
      await store.put(name, [Buffer.from(`step ${step}`)]);
      const next = { epoch, names: [...manifest.names, name] };
      const { kind } = await store.put(`${prefix}n/${n + 1}`, [Buffer.from(JSON.stringify(next))], { condition: { kind: 'if_absent' } });
      if (kind !== 'written') throw new EngineError('ERR_FENCED', 'The number is taken.');
      [n, manifest] = [n + 1, next];
      acked.push(name);
    };
    return {
      epoch, commit, flush: commit,
      steps: () => Promise.resolve(manifest.names.map((name) => Number(name.split('-').at(-1)))),
      async ahead(step) {
        await commit(step);
        await commit(step + 1);
      },
      acked: () => acked,
      giveBack: () => Promise.resolve(),
      letGo: () => Promise.resolve(),
    };
  }

  async function collect({ store }: { readonly store: ObjectStore }): Promise<void> {
    const listed: string[] = [];
    for await (const { key } of store.list(prefix)) listed.push(key);
    const { n, manifest } = await current(store);
    for (const key of listed) {
      if ((/\/j\//.test(key) && !manifest.names.includes(key)) || (numberOf(key) >= 0 && numberOf(key) < n)) await store.delete([key]);
    }
  }

  return { take, collect };
}

export function numberedView(prefix: string): View {
  return (objects) => {
    const n = Math.max(0, ...[...objects.keys()].filter((key) => key.startsWith(prefix)).map(numberOf));
    const { epoch, names } = n === 0 ? { epoch: 0, names: [] } : (JSON.parse(Buffer.from(objects.get(`${prefix}n/${n}`) ?? []).toString()) as Numbered);
    return { write: `${n}`, version: n, epoch, state: 'running', names, steps: names, billed: 0, manifested: 0 };
  };
}
