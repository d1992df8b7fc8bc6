/** Spans as a tracer gets them, and what stays where nobody traces. */
import { InMemorySpanExporter, NodeTracerProvider, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-node';
import { describe, expect, test } from 'vitest';

import { createOtel } from '../../engine/adapters/otel.ts';
import { formatMessage, parseMessage } from '../../engine/adapters/queue-message.ts';
import { EngineError } from '../../engine/core/errors.ts';
import { NO_TELEMETRY } from '../../engine/ports/telemetry.ts';
import { SliceSpans } from '../../engine/telemetry/slices.ts';

const TRACE = '0af7651916cd43dd8448eb211c80319c';
const PARENT = `00-${TRACE}-b7ad6b7169203331-01`;
const where = { tenant: 'acme', job: 'sums' };

function traced() {
  const exporter = new InMemorySpanExporter();
  const provider = new NodeTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] });
  const telemetry = createOtel(provider.getTracer('test'));
  return { telemetry, slices: new SliceSpans(telemetry), spans: () => exporter.getFinishedSpans() };
}

describe('a span', () => {
  test('comes from the traceparent that it is given, and gives one on', () => {
    const { telemetry, spans } = traced();
    const span = telemetry.start('a', { kind: 'server', parent: PARENT });
    expect(span.traceparent).toMatch(new RegExp(`^00-${TRACE}-(?!b7ad6b7169203331)[0-9a-f]{16}-01$`));
    span.end();
    span.end('late');
    expect(spans()).toHaveLength(1);
    expect(spans()[0]?.parentSpanContext?.spanId).toBe('b7ad6b7169203331');
    expect(spans()[0]?.status.code).toBe(0);
  });

  test.each([undefined, '', 'nonsense', PARENT.toUpperCase(), `00-${'0'.repeat(32)}-b7ad6b7169203331-01`, `00-${TRACE}-${'0'.repeat(16)}-01`, `ff-${TRACE}-b7ad6b7169203331-01`, `${PARENT}x`, 'x'.repeat(100_000)])(
    'of a parent that is none (%#) begins a trace, and links to none', (parent) => {
      const { telemetry, spans } = traced();
      telemetry.start('a', { kind: 'consumer', parent, links: [parent] }).end();
      expect(spans()[0]?.parentSpanContext).toBeUndefined();
      expect(spans()[0]?.links).toEqual([]);
      expect(spans()[0]?.spanContext().traceId).not.toBe(TRACE);
    });

  test('where nobody traces is nothing, and adds nothing to a message', () => {
    const span = NO_TELEMETRY.start('a', { kind: 'producer', parent: PARENT });
    span.set({ a: 1 });
    span.end();
    expect(span.traceparent).toBeUndefined();
  });
});

test('a message carries the traceparent, stays under 1 kB with names as long as may be, and is refused with one that is none', () => {
  const longest = { v: 1 as const, tenant: 't'.repeat(64), job: 'j'.repeat(64), slice: 2 ** 53 - 1, priority: 'batch' as const, expiresMs: 2 ** 53 - 1, failures: 2 ** 53 - 1, traceparent: PARENT };
  const text = formatMessage(longest);
  expect(text.length).toBeLessThan(1_024);
  expect(parseMessage(text)).toEqual(longest);
  expect(parseMessage(formatMessage({ ...longest, traceparent: 'prompt' }))).toBeNull();
  expect(formatMessage({ v: 1, tenant: 'a', job: 'b', slice: 0 })).toBe('{"v":1,"tenant":"a","job":"b","slice":0}');
});

describe('a slice', () => {
  test('is a span with its phases, whatever becomes of it', () => {
    const { slices, spans } = traced();
    slices.worker({ kind: 'started', where, slice: 3, alone: false, traceparent: PARENT });
    slices.worker({ kind: 'reached', where, phase: 'loaded', model: 'countdown@cr2', ranMs: 1 });
    slices.worker({ kind: 'begun', where, mode: 'recomputed', recomputed: 12 });
    slices.worker({ kind: 'failed', where, error: new EngineError('ERR_STORE', 'the store at /somewhere'), delayMs: 5 });
    expect(spans().map(({ name }) => name)).toEqual(['load model', 'restore and prefill', 'process jobs']);
    const slice = spans()[2];
    expect(slice?.links.map(({ context }) => context.traceId)).toEqual([TRACE]);
    expect(slice?.attributes).toMatchObject({
      'ruminate.slice': 3, 'ruminate.slice.began': 'recomputed', 'ruminate.slice.tokens_recomputed': 12, 'ruminate.slice.outcome': 'failed', 'error.type': 'ERR_STORE', 'gen_ai.request.model': 'countdown@cr2',
    });
    expect(slice?.status).toEqual({ code: 2 });
    expect(JSON.stringify(slice?.attributes)).not.toContain('somewhere');
  });

  test('that said nothing when it let go ends with the next of its job, or with the worker', () => {
    const { slices, spans } = traced();
    for (const slice of [0, 1]) slices.worker({ kind: 'started', where, slice, alone: false, traceparent: undefined });
    expect(spans().filter(({ name }) => name === 'process jobs')).toHaveLength(1);
    slices.close();
    expect(spans().filter(({ name }) => name === 'process jobs')).toHaveLength(2);
    slices.worker({ kind: 'fenced', where, step: 1, ranMs: 1 });
    expect(spans()).toHaveLength(4);
  });
});
