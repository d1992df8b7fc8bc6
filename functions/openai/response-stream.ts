/**
 * A job as OpenAI's typed events. `sequence_number` is a function of the job alone, so that a reader goes on at any instance: 0 and 1 are
 * `created` and `in_progress`, and what job event `seq` becomes has the numbers from 2 + 16 seq on. They grow and have gaps.
 *
 * One chain is shown as it comes; of several, the elected one at the end.
 */
import type { JobEvent, JobView } from '../../engine/control/platform.ts';
import { EngineError } from '../../engine/core/errors.ts';
import { electedChain } from '../../engine/job/elected.ts';
import { frame } from '../sse.ts';
import { Transcript } from '../transcript.ts';
import { type OutputItem, endedResponse, messageItem, pendingResponse, reasoningItem } from './response-object.ts';

/** No job event becomes more: two items opened, written and closed, and the end. */
const NUMBERS_PER_EVENT = 16;
const FIRST = 2;

type Kind = 'reasoning' | 'message';
type Typed = { readonly type: string } & Readonly<Record<string, unknown>>;

/**
 * @param settled the job as it is once it has ended.
 * @param startingAfter the number of the last event that the reader has; null: none.
 */
export async function* responseFrames(
  events: AsyncIterable<JobEvent>, view: JobView, settled: () => Promise<JobView>, startingAfter: number | null,
): AsyncGenerator<string> {
  const transcript = new Transcript();
  const writer = new ItemWriter(view.id);
  const live = view.chains.length === 1;
  const from = startingAfter ?? -1;
  yield* numbered(0, from, [{ type: 'response.created', response: pendingResponse(view, 'queued') }]);
  yield* numbered(1, from, [{ type: 'response.in_progress', response: pendingResponse(view, 'in_progress') }]);
  let last = -1;
  for await (const event of events) {
    transcript.take(event);
    if (!('seq' in event)) continue;
    last = event.seq;
    const seen = event.kind === 'result' ? await settled() : view;
    yield* numbered(FIRST + NUMBERS_PER_EVENT * event.seq, from, become(event, { transcript, writer, live, view: seen }));
  }
  // The end of a job without a result is no event of its own. Who read along with the run may have come further than was ever committed.
  if (transcript.result === null) yield* numbered(Math.max(FIRST + NUMBERS_PER_EVENT * (last + 1), from + 1), from, [...writer.close('incomplete'), ...endingOf(view, transcript)]);
}

interface Scene {
  readonly transcript: Transcript;
  readonly writer: ItemWriter;
  readonly live: boolean;
  readonly view: JobView;
}

function* become(event: JobEvent, { transcript, writer, live, view }: Scene): Generator<Typed> {
  if ((event.kind === 'token' || event.kind === 'finish') && live) {
    yield* writer.write('reasoning', event.delta.reasoning);
    yield* writer.write('message', event.delta.content);
  }
  if (event.kind !== 'result') return;
  const elected = electedChain(event.result);
  if (!live) {
    const { reasoning, content } = transcript.chain(elected);
    yield* writer.write('reasoning', reasoning);
    yield* writer.write('message', content);
  }
  yield* writer.close(event.result.chains[elected]?.finish_reason === 'stop' ? 'completed' : 'incomplete');
  yield* endingOf(view, transcript);
}

/** OpenAI has no event for a cancelled response: `failed` ends the stream, and the response in it says `cancelled`. */
function* endingOf(view: JobView, transcript: Transcript): Generator<Typed> {
  const response = endedResponse(view, transcript);
  const type = response.status === 'completed' || response.status === 'incomplete' ? response.status : 'failed';
  yield { type: `response.${type}`, response };
}

function* numbered(first: number, from: number, events: Iterable<Typed>): Generator<string> {
  let number = first;
  for (const { type, ...fields } of events) {
    if (number > from) yield frame(JSON.stringify({ type, sequence_number: number, ...fields }), { event: type });
    number += 1;
  }
  if (number - first > NUMBERS_PER_EVENT) throw new EngineError('ERR_INTERNAL', 'One event became more than there are numbers for.');
}

/** The items of the output, one after the other: opened by their first text, closed when another begins. */
class ItemWriter {
  readonly #job: string;
  #kind: Kind | null = null;
  #text = '';
  #index = -1;

  constructor(job: string) {
    this.#job = job;
  }

  *write(kind: Kind, delta: string): Generator<Typed> {
    if (delta === '') return;
    if (this.#kind !== kind) {
      yield* this.close('completed');
      yield* this.#open(kind);
    }
    this.#text += delta;
    yield { type: `response.${textKind(kind)}.delta`, ...this.#place(kind), delta, ...(kind === 'message' ? { logprobs: [] } : {}) };
  }

  *close(status: OutputItem['status']): Generator<Typed> {
    const kind = this.#kind;
    if (kind === null) return;
    const item = this.#item(kind, this.#text, status);
    yield { type: `response.${textKind(kind)}.done`, ...this.#place(kind), text: this.#text, ...(kind === 'message' ? { logprobs: [] } : {}) };
    yield { type: 'response.content_part.done', ...this.#place(kind), part: item.content[0] };
    yield { type: 'response.output_item.done', output_index: this.#index, item };
    this.#kind = null;
  }

  *#open(kind: Kind): Generator<Typed> {
    this.#kind = kind;
    this.#text = '';
    this.#index += 1;
    yield { type: 'response.output_item.added', output_index: this.#index, item: this.#item(kind, null, 'in_progress') };
    yield { type: 'response.content_part.added', ...this.#place(kind), part: this.#item(kind, '', 'in_progress').content[0] };
  }

  #item(kind: Kind, text: string | null, status: OutputItem['status']): OutputItem {
    return kind === 'reasoning' ? reasoningItem(this.#job, text, status) : messageItem(this.#job, text, status);
  }

  #place(kind: Kind): object {
    return { item_id: this.#item(kind, null, 'in_progress').id, output_index: this.#index, content_index: 0 };
  }
}

function textKind(kind: Kind): string {
  return kind === 'reasoning' ? 'reasoning_text' : 'output_text';
}
