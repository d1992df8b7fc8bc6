/** One worker on one machine: its jobs step together, as continuous batching has it, by the times that were measured. */
import { kvAllocatedBytes, kvReads, live } from '../../engine/job/budget.ts';
import type { Measured, MeasuredVariant } from './measured.ts';
import type { Arrival } from './trace.ts';

/** How much slower and larger the model is than the one that was measured. */
export interface Scale {
  readonly slower: number;
  readonly larger: number;
}

export class Times {
  readonly #measured: Measured;
  readonly #variant: MeasuredVariant;
  readonly #scale: Scale;

  constructor(measured: Measured, variant: 'dense' | 'cr8', scale: Scale) {
    this.#measured = measured;
    this.#variant = measured.variants[variant] as MeasuredVariant;
    this.#scale = scale;
  }

  /** Of one step of all jobs together. */
  stepMs(jobs: readonly { readonly arrival: Arrival; readonly step: number }[]): number {
    const { step_ms, token_ms, read_ms } = this.#measured;
    let [chains, reads] = [0, 0];
    for (const { arrival, step } of jobs) {
      const active = activeChains(arrival, step);
      chains += active;
      reads += active * live(arrival.prompt + Math.ceil(step), this.#variant.shape, arrival.prompt);
    }
    return this.#scale.slower * (step_ms + token_ms * chains + read_ms * reads);
  }

  prefillMs({ prompt }: Arrival): number {
    return this.#scale.slower * this.#measured.prefill_token_ms * prompt;
  }

  checkpointBytes(arrival: Arrival, step: number): number {
    const { checkpoint_chain_bytes, checkpoint_live_token_bytes } = this.#measured;
    const chains = arrival.width;
    return this.#scale.larger * chains * (checkpoint_chain_bytes + checkpoint_live_token_bytes * live(arrival.prompt + Math.ceil(step), this.#variant.shape, arrival.prompt));
  }

  /** Of the bytes alone, as resumeMs. */
  saveMs(bytes: number): number {
    return this.#measured.save_byte_ms * bytes;
  }

  resumeMs(bytes: number): number {
    return this.#measured.resume_byte_ms * bytes;
  }

  /** Of a job that begins, or is handed over: no model is larger for that. */
  fixedMs(isHandover: boolean): number {
    return isHandover ? this.#measured.handover_ms : this.#measured.job_ms;
  }

  get callsAJob(): { readonly puts: number; readonly gets: number } {
    return { puts: this.#measured.job_puts, gets: this.#measured.job_gets };
  }

  get startMs(): number {
    return this.#measured.start_ms;
  }

  /** What the job takes of a machine's memory, as admission plans it. */
  memoryBytes({ prompt, length, width }: Arrival): number {
    return this.#scale.larger * kvAllocatedBytes(prompt, Array.from({ length: width }, () => length), this.#variant.shape, this.#variant.geometry);
  }

  /** KV reads of all that the job came to. */
  reads({ prompt, ends, steps }: Arrival): number {
    return ends.reduce((sum, end) => sum + kvReads(prompt, Math.min(end, steps), this.#variant.shape), 0);
  }
}

export function activeChains({ ends }: Arrival, step: number): number {
  return ends.reduce((count, end) => count + (end > step ? 1 : 0), 0);
}

/** Tokens of all chains after so many steps. */
export function tokensAt({ ends, steps }: Arrival, step: number): number {
  return ends.reduce((sum, end) => sum + Math.min(end, steps, step), 0);
}
