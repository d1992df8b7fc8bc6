/**
 * Spans, for whoever traces requests across processes: https://www.w3.org/TR/trace-context/. What every adapter promises: none of these calls throws,
 * waits or fails, whatever becomes of the spans. What every caller promises: attributes are ids, counts and codes, never prompts or texts.
 */
export interface Telemetry {
  start(name: string, options: SpanOptions): Span;
}

export type Attributes = Readonly<Record<string, string | number | boolean | readonly string[] | undefined>>;

export interface SpanOptions {
  /** `server`: answers a request. `producer`, `consumer`: sends a message and works on one, with a queue between. */
  readonly kind: 'server' | 'producer' | 'consumer' | 'internal';
  /** A traceparent; what is none counts as not given. Default: the span begins a trace. */
  readonly parent?: string | undefined;
  /** Traceparents of what led to this, but is not its parent: there is a queue between, and may be days. */
  readonly links?: readonly (string | undefined)[] | undefined;
  readonly attributes?: Attributes | undefined;
}

export interface Span {
  /** For those that come from it; undefined: nobody traces. */
  readonly traceparent: string | undefined;
  set(attributes: Attributes): void;
  /** Idempotent. @param error the code of what went wrong; null: nothing did. */
  end(error?: string | null): void;
}

const NO_SPAN: Span = { traceparent: undefined, set: () => undefined, end: () => undefined };

export const NO_TELEMETRY: Telemetry = { start: () => NO_SPAN };
