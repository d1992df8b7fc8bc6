/**
 * Whether workers may be exchanged at once. A checkpoint is pinned to what computed it: the model and the cache layout have to be the same, or nobody
 * can go on from it, and `numericsId`, or it goes on with other bits (docs/NUMERICS.md). A function of what there is; the deploy acts on it.
 */

/** Of an engine with its models, as a manifest names them. */
export interface Identity {
  readonly numericsId: string;
  readonly layoutId: string;
  /** Of every model and variant that it has, by value; older revisions too, as long as they are there. */
  readonly modelIds: readonly string[];
  /** Of manifests that it reads, and may write. */
  readonly formats: readonly string[];
}

/** Of an engine that does not say. */
export const FIRST_FORMATS: readonly string[] = ['dmskv/1'];

/** Jobs that have not ended and have begun, by what their checkpoints are of. */
export interface Pinned {
  readonly numericsId: string;
  readonly layoutId: string;
  readonly modelId: string;
  readonly format: string;
  readonly jobs: number;
}

export type Rollout =
  /** Whoever takes a parked job goes on with it bit by bit: the two may run side by side, and either may follow the other. */
  | { readonly kind: 'roll' }
  /** The workers that are there finish first. `stranded`: jobs that the others could not go on with; `changed`: that would go on with other bits. */
  | { readonly kind: 'drain'; readonly stranded: number; readonly changed: number };

/** @param to what is to run: a new release, or the one before when it is rolled back. */
export function rolloutOf(to: Identity, pinned: readonly Pinned[]): Rollout {
  const jobsOf = (which: (one: Pinned) => boolean): number => pinned.filter(which).reduce((sum, { jobs }) => sum + jobs, 0);
  const isStranded = ({ layoutId, modelId, format }: Pinned): boolean => layoutId !== to.layoutId || !to.modelIds.includes(modelId) || !to.formats.includes(format);
  const stranded = jobsOf(isStranded);
  const changed = jobsOf((one) => !isStranded(one) && one.numericsId !== to.numericsId);
  return stranded + changed === 0 ? { kind: 'roll' } : { kind: 'drain', stranded, changed };
}

/**
 * Whether both may take from one queue at a time, as a canary does: whatever one parks the other must be able to go on with, also what neither has parked yet.
 */
export function mayShareQueue(a: Identity, b: Identity): boolean {
  const areSame = (one: readonly string[], other: readonly string[]) => one.every((id) => other.includes(id)) && other.every((id) => one.includes(id));
  return a.numericsId === b.numericsId && a.layoutId === b.layoutId && areSame(a.modelIds, b.modelIds) && areSame(a.formats, b.formats);
}

export function sentenceOf(rollout: Rollout): string {
  if (rollout.kind === 'roll') return 'workers may be exchanged at once: every job that has begun goes on bit by bit';
  const { stranded, changed } = rollout;
  return [
    ...(stranded === 0 ? [] : [`${stranded} job${stranded === 1 ? '' : 's'} could not go on (another model, cache layout or format)`]),
    ...(changed === 0 ? [] : [`${changed} job${changed === 1 ? '' : 's'} would go on with other bits (another numericsId)`]),
  ].join('; ') + ': the workers that are there finish them first';
}
