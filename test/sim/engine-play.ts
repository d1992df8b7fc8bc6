/** The engine's own protocol, as the simulation plays it. */
import { seededRandom } from '../../engine/adapters/memory-faults.ts';
import { EngineError } from '../../engine/core/errors.ts';
import { sha256 } from '../../engine/kv/canonical.ts';
import { collectGarbage } from '../../engine/kv/gc.ts';
import type { Head } from '../../engine/kv/head.ts';
import type { Lease } from '../../engine/kv/lease.ts';
import type { Manifest, ManifestContent, ObjectRef } from '../../engine/kv/manifest.ts';
import { jobPrefix } from '../../engine/kv/names.ts';
import type { ProtocolOptions } from '../../engine/kv/protocol.ts';
import { takeJob } from '../../engine/kv/take.ts';
import type { NewObject } from '../../engine/kv/uploads.ts';
import { content, nonces, onTop, stepsOf, WHERE } from '../kv/support.ts';
import type { Owner, Play, Setting } from './play.ts';

/** Nonces that differ between the actors and calls of one world, and are the same when it is played again. */
export function protocolIn({ actor, clock, random }: Setting): ProtocolOptions & { readonly createdMs: number } {
  const label = sha256(actor).slice(0, 8);
  const next = nonces();
  const salt = Math.floor(random() * 2 ** 48).toString(16).padStart(12, '0');
  return { clock, random, nonce: () => `${label}${salt}${next().slice(20)}`, deadlineMs: 8_000, createdMs: 0 };
}

export const enginePlay: Play = {
  async take(setting, force) {
    const protocol = protocolIn(setting);
    const lease = await takeJob(setting.store, WHERE, { ...protocol, owner: setting.actor, commitIntervalMs: 500, waitMs: 4_000, force });
    return owner(lease, setting.random);
  },
  async collect(setting) {
    await collectGarbage(setting.store, WHERE, protocolIn(setting));
  },
};

function owner(lease: Lease, random: () => number): Owner {
  const objectNonces = seededRandom(Math.floor(random() * 2 ** 32));
  const stepObject = (n: number): NewObject => {
    const body = Buffer.from(`step ${n}`);
    const nonce = [0, 0].map(() => Math.floor(objectNonces() * 2 ** 32).toString(16).padStart(8, '0')).join('');
    return { kind: 'journal', chain: -2, n, nonce, body: [body], bytes: body.byteLength, digest: sha256(body) };
  };
  // Of each commit a pack.
  const tailObject = (n: number, chain: number): NewObject => ({ ...stepObject(n), kind: 'tail', chain, n: 0 });
  const objectsOf = (n: number) => [stepObject(n), ...[0, 1, 2, 3].map((chain) => tailObject(n, chain))];
  const manifest = (refs: readonly ObjectRef[], head: Head): ManifestContent => withTails(onTop(lease)(refs, head).objects, refs, lease.manifest);
  const commit = async (n: number) => void (await lease.commit({ state: 'running', manifest, objects: objectsOf(n) }));
  const flush = async (n: number) => {
    const { written, deltaDue } = await lease.flushJournal(stepObject(n));
    if (!written || deltaDue) await lease.commit({ state: 'running', manifest, objects: written ? [] : objectsOf(n) });
  };
  return {
    epoch: lease.head.epoch,
    async steps() {
      // As while it restores: of one that fails nobody hears.
      if (random() < 0.3) await lease.touch().catch(unlessStore);
      return await stepsOf(lease);
    },
    commit,
    flush,
    async ahead(n) {
      const [first, second] = await Promise.allSettled([commit(n), flush(n + 1)]);
      for (const call of [first, second]) if (call.status === 'rejected') throw call.reason;
    },
    acked: () => [...(lease.manifest?.objects ?? []).filter(isJournal), ...lease.head.journal].map(({ name }) => jobPrefix(WHERE) + name),
    giveBack: async () => void (await lease.release({ isStrike: random() < 0.5 })),
    letGo: async (state) => void (await lease.commit({ state, manifest, objects: [] })),
  };
}

const isJournal = ({ name }: Pick<ObjectRef, 'name'>): boolean => name.startsWith('j/');

/** Every journal, and the tails of the newest commit that has some. */
export function withTails(all: readonly ObjectRef[], refs: readonly ObjectRef[], before: Manifest | null): ManifestContent {
  const journals = all.filter(isJournal);
  const news = refs.filter((ref) => !isJournal(ref));
  const tails = news.length > 0 ? news : (before?.objects ?? []).filter((ref) => !isJournal(ref));
  const chains = tails.map((_, i) => ({ tokens: journals.length, finish: null, segments: [], tails: [{ at: journals.length, object: journals.length + i }] }));
  return content([...journals, ...tails], { step: journals.length, journal: journals.map((_, i) => i), chains });
}

function unlessStore(error: unknown): void {
  if (!(error instanceof EngineError && error.code === 'ERR_STORE')) throw error;
}
