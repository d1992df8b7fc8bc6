/**
 * A job as chat.completion.chunk events. One chain, or several that are choices (`n`), are shown token by token. Chains that vote are not:
 * which of them is the answer is known at the end, so until then a chunk with an empty delta says how far each is, at a bounded rate, and
 * then the elected chain comes whole.
 */
import type { JobEvent, JobView } from '../../engine/control/platform.ts';
import type { Clock } from '../../engine/core/clock.ts';
import { callIdOf } from '../../engine/job/call-id.ts';
import { electedChain } from '../../engine/job/elected.ts';
import type { JobResult } from '../../engine/job/generate.ts';
import type { TokenLogprob } from '../../engine/job/logprobs.ts';
import type { CallDelta } from '../../engine/job/splitter.ts';
import { endOf } from '../foreground.ts';
import { frame } from '../sse.ts';
import { Transcript, callsOf, contentOf, saidIn } from '../transcript.ts';
import { openAiLogprobs } from './output.ts';
import { chatFinish, chatUsage, outcomeOf } from './usage.ts';

export interface ChatStreamOptions {
  readonly view: JobView;
  readonly width: number;
  readonly separate: boolean;
  readonly includeUsage: boolean;
  readonly progressMs: number;
  readonly clock: Clock;
}

interface Delta {
  readonly role?: 'assistant';
  readonly content?: string;
  readonly reasoning_content?: string;
  readonly tool_calls?: readonly {
    readonly index: number;
    readonly id?: string;
    readonly type?: 'function';
    readonly function: { readonly name?: string; readonly arguments: string };
  }[];
}

export async function* chatFrames(events: AsyncIterable<JobEvent>, options: ChatStreamOptions): AsyncGenerator<string> {
  const { view, width, separate } = options;
  const transcript = new Transcript();
  const live = separate || width === 1;
  const choices = separate ? width : 1;
  for (let index = 0; index < choices; index++) yield chunk(options, index, { role: 'assistant', content: '' });
  let shownMs = options.clock.nowMs();
  for await (const event of events) {
    transcript.take(event);
    if (live) yield* liveFrames(options, event);
    else if (options.clock.nowMs() - shownMs >= options.progressMs && transcript.result === null) {
      shownMs = options.clock.nowMs();
      yield chunk(options, 0, {}, { hyperscale: { chains: transcript.progress(width) } });
    }
  }
  const result = endOf(transcript, view.id);
  const elected = separate ? null : electedChain(result);
  if (!live) yield* electedFrames(options, transcript, elected ?? 0);
  yield* lastFrames(options, transcript, result, elected);
  if (options.includeUsage) yield frame(JSON.stringify({ ...head(view), choices: [], usage: chatUsage(result.usage, transcript) }));
  yield frame('[DONE]');
}

function* liveFrames(options: ChatStreamOptions, event: JobEvent): Generator<string> {
  if (event.kind !== 'token' && event.kind !== 'finish') return;
  const { chain, delta, logprobs = [] } = event;
  const deltas: Delta[] = delta.reasoning === '' ? [] : [{ reasoning_content: delta.reasoning }];
  for (const more of saidIn(delta)) deltas.push(more.kind === 'text' ? { content: more.text } : callDelta(options.view.id, chain, more.call));
  // The log-probabilities come with the last of it.
  if (deltas.length === 0 && logprobs.length > 0) deltas.push({});
  for (const [i, one] of deltas.entries()) yield chunk(options, chain, one, {}, null, i === deltas.length - 1 ? logprobs : []);
}

function* electedFrames(options: ChatStreamOptions, transcript: Transcript, elected: number): Generator<string> {
  const text = transcript.chain(elected);
  const content = contentOf(text);
  if (text.reasoning !== '') yield chunk(options, 0, { reasoning_content: text.reasoning });
  if (content !== '' || text.logprobs !== null) yield chunk(options, 0, content === '' ? {} : { content }, {}, null, text.logprobs ?? []);
  for (const [index, call] of callsOf(text).entries()) yield chunk(options, 0, callDelta(options.view.id, elected, { index, name: call.name, arguments: call.arguments }));
}

/** The first of a call says which it is. */
function callDelta(job: string, chain: number, { index, name, arguments: json }: Omit<CallDelta, 'at'>): Delta {
  const first = name === undefined ? null : { id: callIdOf(job, chain, index), type: 'function' as const };
  return { tool_calls: [{ index, ...first, function: { ...(name === undefined ? {} : { name }), arguments: json } }] };
}

/** Why each choice ended, the last of them with the outcome of the whole job. */
function* lastFrames(options: ChatStreamOptions, transcript: Transcript, result: Omit<JobResult, 'timing'>, elected: number | null): Generator<string> {
  const shown = elected === null ? result.chains.map((_, chain) => chain) : [elected];
  for (const [index, chain] of shown.entries()) {
    const finish = chatFinish(result.chains[chain]?.finish_reason ?? 'stop', callsOf(transcript.chain(chain)).length);
    const outcome = index === shown.length - 1 ? { hyperscale: outcomeOf(result, elected) } : {};
    yield chunk(options, index, {}, outcome, finish);
  }
}

function chunk({ view, includeUsage }: ChatStreamOptions, index: number, delta: Delta, extension: object = {}, finish: string | null = null, logprobs: readonly TokenLogprob[] = []): string {
  const usage = includeUsage ? { usage: null } : {};
  return frame(JSON.stringify({ ...head(view), choices: [{ index, delta, ...(logprobs.length === 0 ? {} : { logprobs: { content: openAiLogprobs(logprobs), refusal: null } }), finish_reason: finish }], ...usage, ...extension }));
}

function head({ id, createdMs, model }: JobView): object {
  return { id: `chatcmpl-${id}`, object: 'chat.completion.chunk', created: Math.floor(createdMs / 1_000), model };
}
