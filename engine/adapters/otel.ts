/** Spans by OpenTelemetry's interface. Which SDK is behind it, and where spans go, is for whoever composes (cli/tracing.ts). */
import { type SpanContext, SpanKind, SpanStatusCode, type Tracer, ROOT_CONTEXT, trace } from '@opentelemetry/api';

import type { Attributes, Span, SpanOptions, Telemetry } from '../ports/telemetry.ts';

const KINDS = { server: SpanKind.SERVER, producer: SpanKind.PRODUCER, consumer: SpanKind.CONSUMER, internal: SpanKind.INTERNAL } as const;

/** @example createOtel(provider.getTracer('ruminate')) */
export function createOtel(tracer: Tracer): Telemetry {
  return {
    start(name: string, { kind, parent, links = [], attributes }: SpanOptions): Span {
      const from = contextOf(parent);
      const span = tracer.startSpan(name, {
        kind: KINDS[kind],
        attributes: given(attributes ?? {}),
        links: links.flatMap((link) => contextOf(link) ?? []).map((context) => ({ context })),
      }, from === undefined ? ROOT_CONTEXT : trace.setSpanContext(ROOT_CONTEXT, from));
      let ended = false;
      return {
        traceparent: formatTraceparent(span.spanContext()),
        set: (more) => void span.setAttributes(given(more)),
        end(error = null) {
          if (ended) return;
          ended = true;
          if (error !== null) span.setAttribute('error.type', error).setStatus({ code: SpanStatusCode.ERROR });
          span.end();
        },
      };
    },
  };
}

function formatTraceparent({ traceId, spanId, traceFlags }: SpanContext): string {
  return `00-${traceId}-${spanId}-${traceFlags.toString(16).padStart(2, '0')}`;
}

/** undefined: none, or none that is one. Later versions may have more fields, and are read as this one is. */
function contextOf(traceparent: string | undefined): SpanContext | undefined {
  const found = /^(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:$|-)/.exec(traceparent ?? '');
  if (found === null) return undefined;
  return { traceId: found[1] ?? '', spanId: found[2] ?? '', traceFlags: Number.parseInt(found[3] ?? '0', 16) & 1, isRemote: true };
}

function given(attributes: Attributes): Record<string, string | number | boolean | string[]> {
  return Object.fromEntries(Object.entries(attributes).flatMap(([key, value]) => (value === undefined ? [] : [[key, typeof value === 'object' ? [...value] : value]])));
}
