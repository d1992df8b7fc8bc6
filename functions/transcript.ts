/** What events have told of a job so far, chain by chain. */
import type { JobEvent } from '../engine/control/platform.ts';
import type { FinishReason, JobResult } from '../engine/job/generate.ts';
import type { TokenLogprob } from '../engine/job/logprobs.ts';
import type { CallDelta, TextDelta } from '../engine/job/splitter.ts';
import type { JobState } from '../engine/kv/head.ts';

export interface ChainText {
  readonly tokens: number;
  /** Tokens before the first of the content; all of them in a chain that never came to an answer. 0: it did not think. */
  readonly reasoningTokens: number;
  readonly reasoning: string;
  /** What it says, and what it calls, in its order. */
  readonly said: readonly Said[];
  /** Of the tokens of the content, calls among it; null: the job keeps none. */
  readonly logprobs: readonly TokenLogprob[] | null;
  readonly finish: FinishReason | null;
}

export type Said = { readonly kind: 'text'; readonly text: string } | { readonly kind: 'call'; readonly name: string; readonly arguments: string };
export type Call = Extract<Said, { readonly kind: 'call' }>;

const NOTHING: ChainText = { tokens: 0, reasoningTokens: 0, reasoning: '', said: [], logprobs: null, finish: null };

export class Transcript {
  readonly #chains: ChainText[] = [];
  #state: JobState = 'queued';
  #fault: string | null = null;
  #result: Omit<JobResult, 'timing'> | null = null;

  take(event: JobEvent): void {
    switch (event.kind) {
      case 'token':
      case 'finish':
        this.#chains[event.chain] = grown(this.chain(event.chain), event);
        break;
      case 'result':
        this.#result = event.result;
        this.#state = event.state;
        break;
      case 'state':
        this.#state = event.state;
        this.#fault = event.fault ?? null;
        break;
      case 'idle':
        break;
    }
  }

  get state(): JobState {
    return this.#state;
  }

  /** The engine's code of why it failed; null: it did not, or nobody knows. */
  get fault(): string | null {
    return this.#fault;
  }

  get result(): Omit<JobResult, 'timing'> | null {
    return this.#result;
  }

  chain(index: number): ChainText {
    return this.#chains[index] ?? NOTHING;
  }

  /** For a view while chains run. */
  progress(width: number): readonly { readonly tokens: number; readonly finish: FinishReason | null }[] {
    return Array.from({ length: width }, (_, index) => {
      const { tokens, finish } = this.chain(index);
      return { tokens, finish };
    });
  }

  reasoningTokens(): number {
    return this.#chains.reduce((sum, { reasoningTokens }) => sum + reasoningTokens, 0);
  }
}

function grown(chain: ChainText, event: { readonly kind: 'token' | 'finish'; readonly delta: TextDelta; readonly logprobs?: readonly TokenLogprob[]; readonly reason?: FinishReason }): ChainText {
  const said = [...saidIn(event.delta)].reduce(withMore, chain.said);
  const reasoning = chain.reasoning + event.delta.reasoning;
  const tokens = event.kind === 'token' ? chain.tokens + 1 : chain.tokens;
  const logprobs = event.logprobs === undefined ? chain.logprobs : [...(chain.logprobs ?? []), ...event.logprobs];
  const thinks = said.length === 0 && reasoning !== '';
  return { tokens, reasoning, said, logprobs, reasoningTokens: thinks ? tokens : chain.reasoningTokens, finish: event.reason ?? chain.finish };
}

type More = { readonly kind: 'text'; readonly text: string } | { readonly kind: 'call'; readonly call: CallDelta };

/** The content and the calls of a delta, in their order. */
export function* saidIn({ content, calls = [] }: TextDelta): Generator<More> {
  let from = 0;
  for (const call of calls) {
    if (call.at > from) yield { kind: 'text', text: content.slice(from, call.at) };
    yield { kind: 'call', call };
    from = call.at;
  }
  if (from < content.length) yield { kind: 'text', text: content.slice(from) };
}

function withMore(said: readonly Said[], more: More): readonly Said[] {
  const last = said.at(-1);
  if (more.kind === 'text') {
    return last?.kind === 'text' ? [...said.slice(0, -1), { kind: 'text', text: last.text + more.text }] : [...said, more];
  }
  const { name, arguments: json } = more.call;
  if (name !== undefined || last?.kind !== 'call') return [...said, { kind: 'call', name: name ?? '', arguments: json }];
  return [...said.slice(0, -1), { ...last, arguments: last.arguments + json }];
}

export function contentOf({ said }: ChainText): string {
  return said.map((piece) => (piece.kind === 'text' ? piece.text : '')).join('');
}

export function callsOf({ said }: ChainText): readonly Call[] {
  return said.filter((piece) => piece.kind === 'call');
}
