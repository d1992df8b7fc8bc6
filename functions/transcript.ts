/** What events have told of a job so far, chain by chain. */
import type { ChainDelta, JobEvent } from '../engine/control/platform.ts';
import type { FinishReason, JobResult } from '../engine/job/generate.ts';
import type { JobState } from '../engine/kv/head.ts';

export interface ChainText {
  readonly tokens: number;
  /** Tokens before the first of the content; all of them in a chain that never came to an answer. 0: it did not think. */
  readonly reasoningTokens: number;
  readonly reasoning: string;
  readonly content: string;
  readonly finish: FinishReason | null;
}

const NOTHING: ChainText = { tokens: 0, reasoningTokens: 0, reasoning: '', content: '', finish: null };

export class Transcript {
  readonly #chains: ChainText[] = [];
  #state: JobState = 'queued';
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
        break;
      case 'idle':
        break;
    }
  }

  get state(): JobState {
    return this.#state;
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

function grown(chain: ChainText, event: { readonly kind: 'token' | 'finish'; readonly delta: ChainDelta; readonly reason?: FinishReason }): ChainText {
  const token = event.kind === 'token' ? 1 : 0;
  const content = chain.content + event.delta.content;
  const reasoning = chain.reasoning + event.delta.reasoning;
  const tokens = chain.tokens + token;
  const thinks = content === '' && reasoning !== '';
  return { tokens, reasoning, content, reasoningTokens: thinks ? tokens : chain.reasoningTokens, finish: event.reason ?? chain.finish };
}
