/**
 * Spans of slices, made of what a worker says of itself. A slice begins a trace of its own, linked to the request that asked for the job: there is a
 * queue between them, there may be many slices and days, and a trace that never ended would be shown by nobody.
 */
import { EngineError } from '../core/errors.ts';
import { jobPrefix } from '../kv/names.ts';
import type { Span, Telemetry } from '../ports/telemetry.ts';
import type { WorkerEvent } from '../worker/events.ts';
import { ATTRIBUTE, DESTINATION, OPERATION, PROVIDER, SPAN } from './names.ts';

interface Slice {
  readonly span: Span;
  /** What it is busy with. */
  phase: Span;
}

export class SliceSpans {
  readonly #telemetry: Telemetry;
  readonly #running = new Map<string, Slice>();

  constructor(telemetry: Telemetry) {
    this.#telemetry = telemetry;
  }

  readonly worker = (event: WorkerEvent): void => {
    switch (event.kind) {
      case 'started': return this.#begin(event);
      case 'begun': return this.#running.get(jobPrefix(event.where))?.span.set({ [ATTRIBUTE.BEGAN]: event.mode, [ATTRIBUTE.RECOMPUTED]: event.recomputed });
      case 'reached': return this.#reach(event);
      case 'ended': {
        const { prompt_tokens: input, completion_tokens: output, kv_reads: reads } = event.usage;
        return this.#end(event, {
          [ATTRIBUTE.STATE]: event.state, [ATTRIBUTE.GEN_AI_INPUT_TOKENS]: input, [ATTRIBUTE.GEN_AI_OUTPUT_TOKENS]: output, [ATTRIBUTE.KV_READS]: reads,
          [ATTRIBUTE.GEN_AI_FINISH_REASONS]: [...new Set(event.finishes)],
        });
      }
      case 'parked':
      case 'fenced': return this.#end(event);
      case 'failed':
      case 'refused': return this.#end(event, {}, event.error instanceof EngineError ? event.error.code : 'ERR_INTERNAL');
    }
  };

  /** What still runs is not waited for. */
  close(): void {
    for (const key of [...this.#running.keys()]) this.#over(key, null);
  }

  #begin({ where, slice, traceparent }: Extract<WorkerEvent, { kind: 'started' }>): void {
    const key = jobPrefix(where);
    // One that was told to let go before it had begun says nothing.
    this.#over(key, null);
    const span = this.#telemetry.start(SPAN.PROCESS, {
      kind: 'consumer', links: [traceparent],
      attributes: {
        [ATTRIBUTE.MESSAGING_SYSTEM]: PROVIDER, [ATTRIBUTE.MESSAGING_OPERATION]: 'process', [ATTRIBUTE.MESSAGING_DESTINATION]: DESTINATION,
        [ATTRIBUTE.GEN_AI_OPERATION]: OPERATION, [ATTRIBUTE.GEN_AI_PROVIDER]: PROVIDER,
        [ATTRIBUTE.TENANT]: where.tenant, [ATTRIBUTE.JOB]: where.job, [ATTRIBUTE.SLICE]: slice,
      },
    });
    this.#running.set(key, { span, phase: this.#telemetry.start(SPAN.LOAD, { kind: 'internal', parent: span.traceparent }) });
  }

  #reach({ where, phase, model }: Extract<WorkerEvent, { kind: 'reached' }>): void {
    const slice = this.#running.get(jobPrefix(where));
    if (slice === undefined || phase === 'first_token') return;
    slice.phase.end();
    if (phase === 'loaded') slice.span.set({ [ATTRIBUTE.GEN_AI_MODEL]: model });
    slice.phase = this.#telemetry.start(phase === 'loaded' ? SPAN.PREFILL : SPAN.DECODE, { kind: 'internal', parent: slice.span.traceparent });
  }

  #end({ where, kind }: Extract<WorkerEvent, { kind: 'ended' | 'parked' | 'fenced' | 'failed' | 'refused' }>, attributes = {}, error: string | null = null): void {
    const key = jobPrefix(where);
    this.#running.get(key)?.span.set({ [ATTRIBUTE.OUTCOME]: kind, ...attributes });
    this.#over(key, error);
  }

  #over(key: string, error: string | null): void {
    const slice = this.#running.get(key);
    slice?.phase.end(error);
    slice?.span.end(error);
    this.#running.delete(key);
  }
}
