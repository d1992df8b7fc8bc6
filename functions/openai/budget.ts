/** From effort, `hyperscale` and OpenAI's own bounds to one budget. What contradicts itself is refused: no field silently wins. */
import type { ModelView } from '../../engine/control/platform.ts';
import { EngineError } from '../../engine/core/errors.ts';
import type { JobSpec } from '../../engine/job/spec.ts';
import { HttpError } from '../errors.ts';
import { type Effort, type Preset, defaultLength, presetOf } from './effort.ts';
import type { Hyperscale } from './fields.ts';

export interface AskedBudget {
  readonly model: string;
  readonly effort: Effort | undefined;
  readonly hyperscale: Hyperscale | undefined;
  /** [name in the request, tokens] */
  readonly lengths: readonly (readonly [string, number | undefined])[];
  /** More than 1: so many answers, and no vote. */
  readonly n: number;
}

export interface ChosenBudget {
  readonly spec: Pick<JobSpec, 'budget' | 'vote' | 'early_stop' | 'shards'>;
  readonly width: number;
  /** Every chain is an answer of its own. */
  readonly separate: boolean;
}

/** @throws HttpError, EngineError ERR_MODEL_NOT_FOUND */
export async function budgetOf(asked: AskedBudget, models: () => Promise<readonly ModelView[]>): Promise<ChosenBudget> {
  const { hyperscale = {}, n } = asked;
  const preset = asked.effort === undefined ? null : await presetFor(asked.effort, asked, models);
  const length = oneOf([['hyperscale.length', hyperscale.length], ...asked.lengths]) ?? preset?.length ?? undefined;
  if (n > 1) refuseVote(asked);
  const width = n > 1 ? n : (hyperscale.width ?? preset?.width ?? 1);
  const vote = n > 1 ? 'none' : hyperscale.vote;
  return {
    spec: {
      budget: {
        width,
        ...(length === undefined ? {} : { length }),
        ...(hyperscale.compression_ratio === undefined ? {} : { compression_ratio: hyperscale.compression_ratio }),
        ...(hyperscale.kv_read_budget === undefined ? {} : { kv_read_budget: hyperscale.kv_read_budget }),
      },
      ...(vote === undefined ? {} : { vote }),
      ...(hyperscale.shards === undefined ? {} : { shards: hyperscale.shards }),
      ...(hyperscale.early_stop === undefined ? {} : { early_stop: hyperscale.early_stop }),
    },
    width,
    separate: n > 1,
  };
}

/** One value under several names. @throws HttpError if they differ. */
export function oneOf<T>(given: readonly (readonly [string, T | undefined])[]): T | undefined {
  const said = given.filter(([, value]) => value !== undefined);
  const [first] = said;
  const other = said.find(([, value]) => value !== first?.[1]);
  if (first !== undefined && other !== undefined) throw new HttpError('invalid_value', `${first[0]} and ${other[0]} must not both be given and differ.`, { param: other[0] });
  return first?.[1];
}

/** Several answers instead of an elected one: an effort or a vote would have nothing to say. */
function refuseVote({ n, effort, hyperscale }: AskedBudget): void {
  const clash = (param: string) => new HttpError('invalid_value', `${param} must not be given with n above 1, which asks for ${n} answers without a vote.`, { param });
  if (effort !== undefined) throw clash('reasoning_effort');
  if (hyperscale?.vote !== undefined && hyperscale.vote !== 'none') throw clash('hyperscale.vote');
  if (hyperscale?.width !== undefined && hyperscale.width !== n) throw clash('hyperscale.width');
}

async function presetFor(effort: Effort, { model, hyperscale }: AskedBudget, models: () => Promise<readonly ModelView[]>): Promise<Preset> {
  const all = await models();
  const view = findModel(all, model, hyperscale?.compression_ratio);
  if (view === null && hyperscale?.compression_ratio !== undefined && findModel(all, model) !== null) {
    throw new HttpError('invalid_value', 'hyperscale.compression_ratio must be that of a variant of the model; GET /v1/models lists them.', { param: 'hyperscale.compression_ratio' });
  }
  if (view === null) throw new EngineError('ERR_MODEL_NOT_FOUND', 'No model of that name.');
  return presetOf(effort, defaultLength(view.context), view.compression_ratio);
}

/** `countdown@cr8`, or `countdown`: the variant of that ratio, else the default one. */
export function findModel(models: readonly ModelView[], name: string, compressionRatio?: number): ModelView | null {
  const exact = models.find(({ id }) => id === name);
  if (exact !== undefined) return exact;
  const variants = models.filter(({ id }) => id.split('@')[0] === name);
  return variants.find((view) => (compressionRatio === undefined ? view.default : view.compression_ratio === compressionRatio)) ?? null;
}
