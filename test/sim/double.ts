/**
 * The protocol once more, as plainly as the model checker has it, with rules that can be broken: what the simulation must find. A retry
 * here extends the manifest that the head names now, where the engine's manifests are absolute: the second line of defence is off, so that
 * the first is seen. Broken rules are named by the traces of protocol_traces.md.
 */
import { EngineError } from '../../engine/core/errors.ts';
import { pause } from '../../engine/core/waiting.ts';
import { sha256 } from '../../engine/kv/canonical.ts';
import type { ObjectStore } from '../../engine/ports/object-store.ts';
import type { Owner, Play, Setting } from './play.ts';

/**
 * C1: a take does not write the head. E1: a collection does not. G1: it deletes whatever is not named, of any generation. G2: a refused
 * writer looks whether its uploads are there instead of naming them anew. N1: it does not compare nonces. N2: a collection overwrites the
 * nonce. N3: a nonce per owner. N4: a new nonce when a commit is sent again. F1: the fence is inclusive. F2: the manifest keeps its
 * generation. F4: only a refused commit's uploads are named anew.
 */
export type Broken = 'C1' | 'E1' | 'G1' | 'G2' | 'N1' | 'N2' | 'N3' | 'N4' | 'F1' | 'F2' | 'F4';

interface Head {
  readonly version: number;
  readonly epoch: number;
  readonly gc: number;
  readonly writeNonce: string;
  readonly manifest: { readonly name: string } | null;
  readonly spec: string;
}

interface Stored {
  readonly head: Head;
  readonly etag: string;
}

interface Held {
  readonly step: number;
  readonly version: number;
  readonly name: string;
}

const LIMIT = { bytesMax: 1 << 20 };
const RESENDS_MAX = 40;

export function doublePlay(prefix: string, ...broken: readonly Broken[]): Play {
  const breaks = (rule: Broken) => broken.includes(rule);
  // Whoever hands out leases where a take does not write the head.
  const outside = { epoch: 0 };
  let nonces = 0;
  const fresh = () => (++nonces).toString(16).padStart(32, '0');

  async function take(setting: Setting): Promise<Owner> {
    const { store } = setting;
    if (breaks('C1')) return ownerOf(setting, await readHead(store), ++outside.epoch, fresh());
    const writeNonce = fresh();
    for (;;) {
      const base = await readHead(store);
      const next = { ...base.head, version: base.head.version + 1, epoch: base.head.epoch + 1, writeNonce };
      const taken = await send(setting, base, next);
      if (taken.ok) return ownerOf(setting, taken.stored, next.epoch, writeNonce);
    }
  }

  function ownerOf(setting: Setting, taken: Stored, epoch: number, takeNonce: string): Owner {
    const { store, clock, random } = setting;
    const held = new Map<number, Held>();
    let base = taken;
    const acked: string[] = [];
    let objects = 0;

    const isFenced = ({ head }: Stored) => (breaks('C1') ? head.epoch > epoch : head.epoch !== epoch);
    const fenced = () => new EngineError('ERR_FENCED', 'The double is fenced.');

    async function read(name: string): Promise<Buffer> {
      const found = await store.get(prefix + name, LIMIT);
      if (found !== null) return Buffer.concat(found.chunks);
      throw isFenced(await readHead(store)) ? fenced() : new EngineError('ERR_CHECKPOINT', `missing: there is no ${name}`);
    }

    const namesIn = async ({ head }: Stored): Promise<readonly string[]> =>
      head.manifest === null ? [] : (JSON.parse((await read(head.manifest.name)).toString()) as { objects: { name: string }[] }).objects.map(({ name }) => name);

    async function upload(step: number, version: number): Promise<void> {
      const name = `j/${version}/${epoch}-${step}-${(++objects).toString(16).padStart(16, '0')}.jrn`;
      await store.put(prefix + name, [Buffer.from(`step ${step}`)]);
      held.set(step, { step, version, name });
    }

    /** Before a swap: the name under which the step is published. */
    async function home(step: number, isRetry: boolean): Promise<string> {
      const { version, gc } = base.head;
      const has = held.get(step);
      if (has === undefined) await upload(step, version);
      else if (has.version < gc && breaks('G2')) {
        if ((await store.head(prefix + has.name)) === null) await upload(step, version);
      } else if (has.version < gc && (isRetry || !breaks('F4'))) await upload(step, version);
      return held.get(step)?.name ?? '';
    }

    async function commit(step: number): Promise<void> {
      let writeNonce = breaks('N3') ? takeNonce : fresh();
      const firstVersion = base.head.version;
      for (let tries = 0; tries < RESENDS_MAX; tries++) {
        const names = await namesIn(base);
        const all = [...names, await home(step, tries > 0)].map((name) => ({ name }));
        const text = JSON.stringify({ step: all.length, objects: all, journal: all.map((_, i) => i) });
        const name = `m/${breaks('F2') ? firstVersion : base.head.version}-${sha256(text)}.json`;
        await store.put(prefix + name, [Buffer.from(text)]);
        const next = { ...base.head, version: base.head.version + 1, epoch, writeNonce, manifest: { name } };
        const sent = await send(setting, base, next, breaks('N4') ? 1 : RESENDS_MAX, breaks('N1'));
        if (!sent.ok && isFenced(sent.stored)) throw fenced();
        if (!sent.ok && sent.stored.etag === base.etag) writeNonce = fresh();
        base = sent.stored;
        if (!sent.ok) {
          await pause(clock, random() * 50, undefined);
          continue;
        }
        acked.push(prefix + (held.get(step)?.name ?? ''));
        held.delete(step);
        return;
      }
      throw new EngineError('ERR_STORE', 'The double gives up.');
    }

    return {
      epoch,
      async steps() {
        const steps: number[] = [];
        for (const name of await namesIn(base)) steps.push(Number((await read(name)).toString().split(' ')[1]));
        return steps;
      },
      commit,
      flush: commit,
      async ahead(step) {
        await upload(step, base.head.version);
        await upload(step + 1, base.head.version);
        await commit(step);
        await commit(step + 1);
      },
      acked: () => acked,
      giveBack: () => Promise.resolve(),
      letGo: () => Promise.resolve(),
    };
  }

  /** Sends the same bytes until they are applied or the head has moved, at most so often. */
  async function send({ store, clock, random }: Setting, base: Stored, next: Head, resends = RESENDS_MAX, isNaive = false): Promise<{ readonly ok: boolean; readonly stored: Stored }> {
    for (let tries = 0; ; tries++) {
      const outcome = await store.put(`${prefix}HEAD`, [Buffer.from(JSON.stringify(next))], { condition: { kind: 'if_match', etag: base.etag } });
      if (outcome.kind === 'written') return { ok: true, stored: { head: next, etag: outcome.etag } };
      const current = await readHead(store);
      if (!isNaive && current.head.writeNonce === next.writeNonce) return { ok: true, stored: current };
      if (current.etag !== base.etag || tries + 1 >= resends) return { ok: false, stored: current };
      await pause(clock, random() * 50, undefined);
    }
  }

  async function collect(setting: Setting): Promise<void> {
    const { store } = setting;
    let fence = Number.MAX_SAFE_INTEGER;
    let fencedHead: Head | null = null;
    while (!breaks('E1') && fencedHead === null) {
      const base = await readHead(store);
      const version = base.head.version + 1;
      const next = { ...base.head, version, gc: version, writeNonce: breaks('N2') ? fresh() : base.head.writeNonce };
      const outcome = await store.put(`${prefix}HEAD`, [Buffer.from(JSON.stringify(next))], { condition: { kind: 'if_match', etag: base.etag } });
      const { head } = outcome.kind === 'written' ? { head: next } : await readHead(store);
      if (head.gc < version) continue;
      [fencedHead, fence] = [head, head.gc];
    }
    const listed: string[] = [];
    for await (const { key } of store.list(prefix)) listed.push(key.slice(prefix.length));
    // As of the fence, like the engine and the traces.
    const head = fencedHead ?? (await readHead(store)).head;
    const manifest = head.manifest === null ? null : await store.get(prefix + head.manifest.name, LIMIT);
    // Replaced and collected by another since: another time.
    if (head.manifest !== null && manifest === null) return;
    const objects = manifest === null ? [] : (JSON.parse(Buffer.concat(manifest.chunks).toString()) as { objects: { name: string }[] }).objects;
    const named = new Set([head.manifest?.name, ...objects.map(({ name }) => name)]);
    for (const name of listed) {
      const version = Number(/^[mj]\/(\d+)/.exec(name)?.[1] ?? NaN);
      const isOld = breaks('G1') || breaks('E1') || version < fence + (breaks('F1') ? 1 : 0);
      if (!Number.isNaN(version) && !named.has(name) && isOld) await store.delete([prefix + name]);
    }
  }

  async function readHead(store: ObjectStore): Promise<Stored> {
    const found = await store.get(`${prefix}HEAD`, LIMIT);
    if (found === null) throw new EngineError('ERR_JOB_NOT_FOUND', 'The double finds no head.');
    return { head: JSON.parse(Buffer.concat(found.chunks).toString()) as Head, etag: found.etag };
  }

  return { take, collect };
}
