/**
 * A job as chat.completion.chunk events. One chain, or several that are choices (`n`), are shown token by token. Chains that vote are not:
 * which of them is the answer is known at the end, so until then a chunk with an empty delta says how far each is, at a bounded rate, and
 * then the elected chain comes whole.
 */
import type { JobEvent, JobView } from '../../engine/control/platform.ts';
import type { Clock } from '../../engine/core/clock.ts';
import { electedChain } from '../../engine/job/elected.ts';
import type { JobResult } from '../../engine/job/generate.ts';
import { endOf } from '../foreground.ts';
import { frame } from '../sse.ts';
import { Transcript } from '../transcript.ts';
import { chatUsage, openaiFinish, outcomeOf } from './usage.ts';

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
  yield* lastFrames(options, result, elected);
  if (options.includeUsage) yield frame(JSON.stringify({ ...head(view), choices: [], usage: chatUsage(result.usage, transcript) }));
  yield frame('[DONE]');
}

function* liveFrames(options: ChatStreamOptions, event: JobEvent): Generator<string> {
  if (event.kind !== 'token' && event.kind !== 'finish') return;
  const { reasoning, content } = event.delta;
  if (reasoning === '' && content === '') return;
  yield chunk(options, event.chain, textDelta(reasoning, content));
}

function* electedFrames(options: ChatStreamOptions, transcript: Transcript, elected: number): Generator<string> {
  const { reasoning, content } = transcript.chain(elected);
  if (reasoning !== '') yield chunk(options, 0, textDelta(reasoning, ''));
  if (content !== '') yield chunk(options, 0, textDelta('', content));
}

/** Why each choice ended, the last of them with the outcome of the whole job. */
function* lastFrames(options: ChatStreamOptions, result: Omit<JobResult, 'timing'>, elected: number | null): Generator<string> {
  const shown = elected === null ? result.chains.map((_, chain) => chain) : [elected];
  for (const [index, chain] of shown.entries()) {
    const finish = openaiFinish(result.chains[chain]?.finish_reason ?? 'stop');
    const outcome = index === shown.length - 1 ? { hyperscale: outcomeOf(result, elected) } : {};
    yield chunk(options, index, {}, outcome, finish);
  }
}

function textDelta(reasoning: string, content: string): Delta {
  return { ...(reasoning === '' ? {} : { reasoning_content: reasoning }), ...(content === '' ? {} : { content }) };
}

function chunk({ view, includeUsage }: ChatStreamOptions, index: number, delta: Delta, extension: object = {}, finish: string | null = null): string {
  const usage = includeUsage ? { usage: null } : {};
  return frame(JSON.stringify({ ...head(view), choices: [{ index, delta, finish_reason: finish }], ...usage, ...extension }));
}

function head({ id, createdMs, model }: JobView): object {
  return { id: `chatcmpl-${id}`, object: 'chat.completion.chunk', created: Math.floor(createdMs / 1_000), model };
}
