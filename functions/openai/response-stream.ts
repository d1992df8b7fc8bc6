/**
 * A job as OpenAI's typed events. `sequence_number` is a function of the job alone, so that a reader goes on at any instance: 0 and 1 are
 * `created` and `in_progress`, and what job event `seq` becomes has the numbers from 2 + 2048 seq on. They grow and have gaps. The end of a job
 * without a result, which is no event of it, has the last 16 numbers of the event that did not come any more.
 *
 * One chain is shown as it comes; of several, the elected one at the end.
 */
import type { JobEvent, JobView } from '../../engine/control/platform.ts';
import { EngineError } from '../../engine/core/errors.ts';
import { electedChain } from '../../engine/job/elected.ts';
import type { TokenLogprob } from '../../engine/job/logprobs.ts';
import { frame } from '../sse.ts';
import { Transcript, saidIn } from '../transcript.ts';
import { openAiLogprobs } from './output.ts';
import { type Ended, type ItemPart, type OutputItem, endedResponse, type Whose, itemOf, pendingResponse, whoseOf } from './response-object.ts';

/** No job event becomes more: thinking, and TOOLS_MAX calls with text before and after each, opened, written and closed, and the end. */
const NUMBERS_PER_EVENT = 2_048;
const FIRST = 2;
/** Where in the numbers of an event an end without a result has its own: what any other event becomes is over before. */
const ENDING = NUMBERS_PER_EVENT - 16;

type Typed = { readonly type: string } & Readonly<Record<string, unknown>>;

/**
 * @param settled the job as it is once it has ended with a result.
 * @param startingAfter the number of the last event that the reader has; null: none.
 */
export async function* responseFrames(
  events: AsyncIterable<JobEvent>, view: JobView, settled: () => Promise<Ended>, startingAfter: number | null,
): AsyncGenerator<string> {
  const transcript = new Transcript();
  const writer = new ItemWriter(whoseOf(view));
  const live = view.chains.length === 1;
  const from = startingAfter ?? -1;
  yield* numbered(0, from, [{ type: 'response.created', response: pendingResponse(view, 'queued') }]);
  yield* numbered(1, from, [{ type: 'response.in_progress', response: pendingResponse(view, 'in_progress') }]);
  let last = -1;
  for await (const event of events) {
    transcript.take(event);
    if (!('seq' in event)) continue;
    last = event.seq;
    const ended = event.kind === 'result' ? await settled() : { view, endedMs: null };
    yield* numbered(FIRST + NUMBERS_PER_EVENT * event.seq, from, become(event, { transcript, writer, live, ended }));
  }
  if (transcript.result === null) yield* numbered(endingFrom(last, from), from, [...writer.close('incomplete'), ...endingOf({ view, endedMs: null }, transcript)]);
}

/**
 * The first number of an end without a result, after the last event that the job has. Who read along with the run may have come further than was ever
 * committed: to him it ends there, and once.
 */
function endingFrom(last: number, from: number): number {
  const [read, place] = [Math.floor((from - FIRST) / NUMBERS_PER_EVENT), (from - FIRST) % NUMBERS_PER_EVENT];
  return FIRST + NUMBERS_PER_EVENT * Math.max(last + 1, place < ENDING ? read + 1 : read) + ENDING;
}

interface Scene {
  readonly transcript: Transcript;
  readonly writer: ItemWriter;
  readonly live: boolean;
  readonly ended: Ended;
}

function* become(event: JobEvent, { transcript, writer, live, ended }: Scene): Generator<Typed> {
  if ((event.kind === 'token' || event.kind === 'finish') && live) {
    yield* writer.write('reasoning', event.delta.reasoning);
    writer.hold(event.logprobs ?? []);
    for (const more of saidIn(event.delta)) {
      if (more.kind === 'text') yield* writer.write('text', more.text);
      else yield* writer.call(more.call.name, more.call.arguments);
    }
  }
  if (event.kind !== 'result') return;
  const elected = electedChain(event.result);
  if (!live) {
    writer.chain = elected;
    const { reasoning, said, logprobs } = transcript.chain(elected);
    yield* writer.write('reasoning', reasoning);
    writer.hold(logprobs ?? []);
    for (const piece of said) {
      if (piece.kind === 'text') yield* writer.write('text', piece.text);
      else yield* writer.call(piece.name, piece.arguments);
    }
  }
  yield* writer.close(event.result.chains[elected]?.finish_reason === 'stop' ? 'completed' : 'incomplete');
  yield* endingOf(ended, transcript);
}

/** OpenAI has no event for a cancelled response: `failed` ends the stream, and the response in it says `cancelled`. */
function* endingOf(ended: Ended, transcript: Transcript): Generator<Typed> {
  const response = endedResponse(ended, transcript);
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

/** The items of the output, one after the other: opened by what comes first to them, closed when another begins. */
class ItemWriter {
  #whose: Whose;
  #part: ItemPart | null = null;
  #index = -1;
  readonly #counts = { text: 0, call: 0 };
  /** Of the text, which is one where there are any; those that came before it wait for it. */
  readonly #logprobs: TokenLogprob[] = [];
  readonly #waiting: TokenLogprob[] = [];

  constructor(whose: Whose) {
    this.#whose = whose;
  }

  /** Whose text it is. Before the first item. */
  set chain(chain: number) {
    this.#whose = { ...this.#whose, chain };
  }

  /** They belong to the text that comes next, or that is there when it ends. */
  hold(logprobs: readonly TokenLogprob[]): void {
    this.#waiting.push(...logprobs);
  }

  *write(kind: 'reasoning' | 'text', delta: string): Generator<Typed> {
    if (delta === '') return;
    if (this.#part?.kind !== kind) {
      yield* this.close('completed');
      yield* this.#open(kind === 'reasoning' ? { kind, text: null } : { kind, index: this.#counts.text++, text: null });
    }
    const part = this.#part;
    if (part === null || part.kind === 'call') return;
    const told = part.kind === 'text' ? this.#waiting.splice(0) : [];
    this.#logprobs.push(...told);
    this.#part = { ...part, text: (part.text ?? '') + delta };
    yield { type: `response.${wordOf(part)}.delta`, ...this.#place(part), delta, ...logprobsOf(part, told) };
    if (this.#summarizes(part)) yield { type: 'response.reasoning_summary_text.delta', ...this.#summaryPlace(part), delta };
  }

  /** @param name of the one that begins; undefined: more of the one before. */
  *call(name: string | undefined, delta: string): Generator<Typed> {
    if (name !== undefined) {
      yield* this.close('completed');
      yield* this.#open({ kind: 'call', index: this.#counts.call++, name, arguments: '' });
    }
    const part = this.#part;
    if (part?.kind !== 'call' || delta === '') return;
    this.#part = { ...part, arguments: part.arguments + delta };
    yield { type: 'response.function_call_arguments.delta', item_id: this.#item(part).id, output_index: this.#index, delta };
  }

  *close(status: OutputItem['status']): Generator<Typed> {
    const part = this.#part;
    if (part === null) return;
    if (part.kind === 'text') this.#logprobs.push(...this.#waiting.splice(0));
    const item = this.#item(part.kind === 'text' ? { ...part, logprobs: this.#logprobs } : part, status);
    if (part.kind === 'call') {
      yield { type: 'response.function_call_arguments.done', item_id: item.id, output_index: this.#index, name: part.name, arguments: part.arguments };
    } else {
      yield { type: `response.${wordOf(part)}.done`, ...this.#place(part), text: part.text ?? '', ...logprobsOf(part, this.#logprobs) };
      yield { type: 'response.content_part.done', ...this.#place(part), part: contentOf(item) };
      if (item.type === 'reasoning' && this.#summarizes(part)) {
        yield { type: 'response.reasoning_summary_text.done', ...this.#summaryPlace(part), text: part.text ?? '' };
        yield { type: 'response.reasoning_summary_part.done', ...this.#summaryPlace(part), part: item.summary[0] };
      }
    }
    yield { type: 'response.output_item.done', output_index: this.#index, item };
    this.#part = null;
  }

  *#open(part: ItemPart): Generator<Typed> {
    this.#part = part;
    this.#index += 1;
    yield { type: 'response.output_item.added', output_index: this.#index, item: this.#item(part) };
    if (part.kind !== 'call') yield { type: 'response.content_part.added', ...this.#place(part), part: contentOf(this.#item({ ...part, text: '' })) };
    if (this.#summarizes(part)) yield { type: 'response.reasoning_summary_part.added', ...this.#summaryPlace(part), part: { type: 'summary_text', text: '' } };
  }

  #item(part: ItemPart, status: OutputItem['status'] = 'in_progress'): OutputItem {
    return itemOf(this.#whose, part, status);
  }

  #place(part: ItemPart): object {
    return { item_id: this.#item(part).id, output_index: this.#index, content_index: 0 };
  }

  #summarizes({ kind }: ItemPart): boolean {
    return kind === 'reasoning' && this.#whose.summarizes;
  }

  #summaryPlace(part: ItemPart): object {
    return { item_id: this.#item(part).id, output_index: this.#index, summary_index: 0 };
  }
}

function wordOf({ kind }: ItemPart): string {
  return kind === 'reasoning' ? 'reasoning_text' : 'output_text';
}

function logprobsOf({ kind }: ItemPart, logprobs: readonly TokenLogprob[]): object {
  return kind === 'text' ? { logprobs: openAiLogprobs(logprobs) } : {};
}

function contentOf(item: OutputItem): unknown {
  return item.type === 'function_call' ? undefined : item.content[0];
}
