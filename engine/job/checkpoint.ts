/** What a job's manifest says, as the job layer thinks of it: references instead of indices, and what a save adds. Pure functions. */
import { assert } from '../core/assert.ts';
import type { Manifest, ManifestContent, ObjectRef } from '../kv/manifest.ts';
import { parseName } from '../kv/names.ts';
import type { RunReport, SavedObject } from '../runtime/native.ts';

export interface CheckpointChain {
  readonly tokens: number;
  readonly finish: string | null;
  readonly segments: readonly ObjectRef[];
  readonly tails: readonly { readonly at: number; readonly object: ObjectRef }[];
}

export interface Checkpoint extends Omit<ManifestContent, 'promptTail' | 'chains' | 'objects' | 'journal'> {
  readonly promptTail: ObjectRef | null;
  readonly chains: readonly CheckpointChain[];
  readonly journal: readonly ObjectRef[];
}

/** Two cuts of a chain are kept: a damaged newest one costs an interval, not the job. Of one that has ended only the last, if the one before would keep a pack of what nobody needs. */
const TAILS_KEPT = 2;
const PROMPT_CHAIN = -1;

/** @param flushed journals that the head names beyond the manifest, of the job itself. */
export function checkpointOf(manifest: Manifest, flushed: readonly ObjectRef[]): Checkpoint {
  const { format: _f, tenant: _t, job: _j, version: _v, epoch: _e, spec: _s, objects, ...content } = manifest;
  const at = (index: number): ObjectRef => {
    const object = objects[index];
    assert(object !== undefined, 'a manifest was checked when it was parsed');
    return object;
  };
  return {
    ...content,
    promptTail: content.promptTail === null ? null : at(content.promptTail),
    chains: content.chains.map((chain) => ({
      ...chain,
      segments: chain.segments.map(at),
      tails: chain.tails.map(({ at: cut, object }) => ({ at: cut, object: at(object) })),
    })),
    journal: [...content.journal.map(at), ...flushed],
  };
}

/** Every object once, and nothing that is not used. */
export function contentOf(checkpoint: Checkpoint): ManifestContent {
  const objects: ObjectRef[] = [];
  const indices = new Map<string, number>();
  const index = (object: ObjectRef): number => {
    const known = indices.get(object.name);
    if (known !== undefined) return known;
    indices.set(object.name, objects.length);
    objects.push(object);
    return objects.length - 1;
  };
  const { promptTail, chains, journal, ...rest } = checkpoint;
  return {
    ...rest,
    promptTail: promptTail === null ? null : index(promptTail),
    chains: chains.map((chain) => ({
      ...chain,
      segments: chain.segments.map(index),
      tails: chain.tails.map(({ at, object }) => ({ at, object: index(object) })),
    })),
    journal: journal.map(index),
    objects,
  };
}

/** Index within its job of the checkpoint's first chain: by that its journals know it. */
export function firstOf({ vote }: Pick<Checkpoint, 'vote'>): number {
  return vote?.first ?? 0;
}

/** The prompt's pages, which its chains share. */
export function promptSegments(checkpoint: Checkpoint): readonly ObjectRef[] {
  return checkpoint.chains.map(({ segments }) => segments.filter(isOfPrompt)).find((segments) => segments.length > 0) ?? [];
}

export function isOfPrompt({ name }: ObjectRef): boolean {
  return chainOf(name) === PROMPT_CHAIN;
}

/** After a save: `saved` as they came, `refs` as they are called in the store, index by index. @param firstChain of the run, within the job: objects are named by it. */
export function withCut(checkpoint: Checkpoint, report: RunReport, saved: readonly SavedObject[], refs: readonly ObjectRef[], firstChain = 0): Checkpoint {
  let { promptTail } = checkpoint;
  const journal = [...checkpoint.journal];
  const chains = report.chains.map(({ tokens, finish }, i) => ({
    tokens: tokens.length,
    finish,
    segments: [...(checkpoint.chains[i]?.segments ?? [])],
    tails: [...(checkpoint.chains[i]?.tails ?? [])],
  }));
  saved.forEach((object, i) => {
    const ref = refs[i];
    assert(ref !== undefined, 'a reference for every object');
    if (object.kind === 'journal') return void journal.push(ref);
    if (object.chain === PROMPT_CHAIN) {
      if (object.kind === 'tail') promptTail = ref;
      // Chains that came with pages of their own have theirs.
      else for (const chain of chains) if (chain.segments.length === 0) chain.segments.push(ref);
      return;
    }
    const chain = chains[object.chain - firstChain];
    assert(chain !== undefined, 'a save is of chains of the job');
    if (object.kind === 'segment') return void chain.segments.push(ref);
    // The same cut again, or one after going back to an older: what comes later is what counts.
    const before = chain.tails.filter(({ at, object: older }) => at < object.generated && (chain.finish === null || older.pack === undefined));
    chain.tails = [...before, { at: object.generated, object: ref }].slice(-TAILS_KEPT);
  });
  return { ...checkpoint, step: report.step, promptTail, chains, journal };
}

/** Whether the next cut leaves a saved object as it is: every segment, and tails of the prompt and of chains that have ended. */
export function lasts({ kind, chain }: Pick<SavedObject, 'kind' | 'chain'>, { chains }: RunReport, firstChain = 0): boolean {
  return kind !== 'tail' || chain === PROMPT_CHAIN || chains[chain - firstChain]?.finish !== null;
}

/** Objects up to which the policy alone says when. */
const STRETCH_OBJECTS = 512;

/**
 * How many times the policy's distance the next write is away: no object is ever merged with another, and a manifest that lists them all is
 * bounded. From then on their number grows with the root of the time that a job has run, and what a kill costs stays a small part of that time.
 */
export function stretchOf({ chains, journal }: Pick<Checkpoint, 'chains' | 'journal'>): number {
  return Math.max(1, chains.reduce((sum, { segments }) => sum + segments.length, journal.length) / STRETCH_OBJECTS);
}

function chainOf(name: string): number | null {
  const parsed = parseName(name);
  return parsed !== null && 'chain' in parsed ? parsed.chain : null;
}
