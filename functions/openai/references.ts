/** Items of an input that stand for those of earlier responses: clients that know a response is stored send its items by their identifiers. */
import { HttpError, failureOf } from '../errors.ts';
import { HTTP_LIMITS } from '../limits.ts';
import type { OutputItem } from './response-object.ts';
import type { ResponseRequest } from './response-request.ts';

type Items = Exclude<ResponseRequest['input'], string>;

/**
 * @param outputOf of a response that has ended, by its job; asked once for each.
 * @throws HttpError previous_response_not_found, invalid_value
 */
export async function resolved(request: ResponseRequest, outputOf: (job: string) => Promise<readonly OutputItem[]>): Promise<ResponseRequest> {
  const { input } = request;
  if (typeof input === 'string' || !input.some(({ type }) => type === 'item_reference')) return request;
  const known = new Map<string, readonly OutputItem[]>();
  const items: Items = [];
  for (const [index, item] of input.entries()) {
    items.push(item.type === 'item_reference' ? await found(item.id, `input.${index}.id`, known, outputOf) : item);
  }
  return { ...request, input: items };
}

async function found(id: string, param: string, known: Map<string, readonly OutputItem[]>, outputOf: (job: string) => Promise<readonly OutputItem[]>): Promise<OutputItem> {
  for (const job of jobsOf(id)) {
    if (!known.has(job)) {
      if (known.size >= HTTP_LIMITS.REFERENCES_MAX) throw new HttpError('invalid_value', `input must refer to at most ${HTTP_LIMITS.REFERENCES_MAX} responses.`, { param: 'input' });
      known.set(job, await outputOf(job).catch(unlessMissing));
    }
    const item = known.get(job)?.find((one) => one.id === id);
    if (item !== undefined) return item;
  }
  throw new HttpError('previous_response_not_found', `${param} names no item of a response of yours.`, { param });
}

/** `rs_<job>`, `msg_<job>`, `msg_<job>_<index>`, `fc_<job>_<index>`; a job's own name may end like that. */
function jobsOf(id: string): readonly string[] {
  const [, rest] = /^(?:rs|msg|fc)_(.+)$/.exec(id) ?? [];
  if (rest === undefined) return [];
  const counted = /^(.+)_\d+$/.exec(rest)?.[1];
  return counted === undefined ? [rest] : [counted, rest];
}

function unlessMissing(error: unknown): readonly OutputItem[] {
  if (failureOf(error).status !== 404) throw error;
  return [];
}
