/** What a stream, of events or of bytes, promises whatever is in it, and what a body may do. */
import { describe, expect, test, vi } from 'vitest';

import { type Clock, systemClock } from '../../engine/core/clock.ts';
import { readJson } from '../../functions/body.ts';
import { byteStream } from '../../functions/byte-stream.ts';
import { HTTP_LIMITS } from '../../functions/limits.ts';
import { KEEP_ALIVE, frame, sseResponse } from '../../functions/sse.ts';

/** Timers that fire when the test says so. */
class HandClock implements Clock {
  readonly #timers = new Set<AbortController>();

  nowMs(): number {
    return 0;
  }

  timeout(): { readonly signal: AbortSignal } & Disposable {
    const timer = new AbortController();
    this.#timers.add(timer);
    return { signal: timer.signal, [Symbol.dispose]: () => this.#timers.delete(timer) };
  }

  get pending(): number {
    return this.#timers.size;
  }

  fire(): void {
    for (const timer of [...this.#timers]) {
      this.#timers.delete(timer);
      timer.abort();
    }
  }
}

const quiet = { clock: systemClock, keepAliveMs: 60_000, onEnd: () => undefined, onError: (error: unknown) => frame(`"${String(error)}"`) };
const turn = () => new Promise((resolve) => setTimeout(resolve, 0));

async function* counting(seen: { made: number; aborted?: boolean }, signal?: AbortSignal): AsyncGenerator<string> {
  signal?.addEventListener('abort', () => {
    seen.aborted = true;
  });
  for (;;) {
    await turn();
    if (signal?.aborted) return;
    yield frame(`${seen.made++}`);
  }
}

describe('a stream', () => {
  test('makes no frame that nobody reads', async () => {
    const seen = { made: 0 };
    const reader = sseResponse(() => counting(seen), quiet).body?.getReader();
    for (let n = 0; n < 20; n++) await turn();
    expect(seen.made).toBeLessThanOrEqual(2);
    for (let n = 0; n < 5; n++) await reader?.read();
    for (let n = 0; n < 20; n++) await turn();
    expect(seen.made).toBeLessThanOrEqual(7);
    await reader?.cancel();
  });

  test('tells its producer that the reader has gone, once, and leaves no timer', async () => {
    const seen: { made: number; aborted?: boolean } = { made: 0 };
    const clock = new HandClock();
    const onEnd = vi.fn();
    const reader = sseResponse((signal) => counting(seen, signal), { ...quiet, clock, onEnd }).body?.getReader();
    await reader?.read();
    expect(clock.pending).toBe(1);
    await reader?.cancel();
    expect(seen.aborted).toBe(true);
    expect(onEnd.mock.calls).toEqual([[true]]);
    expect(clock.pending).toBe(0);
  });

  test('ends with a frame that says what was thrown', async () => {
    const onEnd = vi.fn();
    const failing = async function* () {
      yield frame('1');
      throw new Error('no more');
    };
    expect(await sseResponse(failing, { ...quiet, onEnd }).text()).toBe('data: 1\n\ndata: "Error: no more"\n\n');
    expect(onEnd.mock.calls).toEqual([[false]]);
  });

  test('is kept alive when a whole beat has brought nothing, and only then', async () => {
    const clock = new HandClock();
    let next: (text: string) => void = () => undefined;
    const produce = async function* () {
      for (;;) yield await new Promise<string>((resolve) => (next = resolve));
    };
    const reader = sseResponse(produce, { ...quiet, clock }).body?.pipeThrough(new TextDecoderStream()).getReader();
    const first = reader?.read();
    await turn();
    next('a');
    expect((await first)?.value).toBe('a');
    const second = reader?.read();
    await turn();
    clock.fire();
    clock.fire();
    expect((await second)?.value).toBe(KEEP_ALIVE);
    await reader?.cancel();
  });
});

test('a large body is decoded, parsed and looked at in turns of their own, and others have theirs between', async () => {
  let turns = 0;
  let isOver = false;
  const count = () => {
    turns++;
    if (!isOver) setImmediate(count);
  };
  const at: Record<string, number> = {};
  const [decode, parse] = [TextDecoder.prototype.decode, JSON.parse];
  vi.spyOn(TextDecoder.prototype, 'decode').mockImplementation(function (this: InstanceType<typeof TextDecoder>, ...args) {
    at.decoded = turns;
    return decode.apply(this, args);
  });
  vi.spyOn(JSON, 'parse').mockImplementation((...args) => {
    at.parsed = turns;
    return parse(...args) as unknown;
  });
  try {
    const body = JSON.stringify({ text: 'x'.repeat(HTTP_LIMITS.BODY_TURNS_BYTES) });
    count();
    const read = readJson(new Request('http://127.0.0.1/', { method: 'POST', headers: { 'content-type': 'application/json' }, body }), new HandClock());
    await read.then(() => (at.read = turns));
    const { decoded = NaN, parsed = NaN, read: seen = NaN } = at;
    expect([parsed - decoded >= 2, seen - parsed >= 1], JSON.stringify(at)).toEqual([true, true]);
  } finally {
    isOver = true;
    vi.restoreAllMocks();
  }
});

test('a body that does not end in time is given up', async () => {
  const clock = new HandClock();
  const body = new ReadableStream<Uint8Array>({ start: (controller) => controller.enqueue(new TextEncoder().encode('{"model":')) });
  const init: RequestInit = { method: 'POST', headers: { 'content-type': 'application/json' }, body, duplex: 'half' };
  const read = readJson(new Request('http://127.0.0.1/', init), clock);
  await turn();
  clock.fire();
  await expect(read).rejects.toMatchObject({ code: 'body_timeout', status: 408 });
});

describe('bytes', () => {
  test.each(['gives', 'throws'])('of which the client leaves end once, although what was being read still %s', async (what) => {
    let answer = () => undefined as unknown;
    const late = new Promise<void>((resolve) => { answer = resolve; });
    const content = (async function* () {
      await late;
      if (what === 'throws') throw new Error('told to stop');
      yield Uint8Array.of(1);
    })();
    const ends: unknown[] = [];
    const reader = byteStream(content, (error) => ends.push(error)).getReader();
    const read = reader.read();
    await turn();
    await reader.cancel();
    answer();
    expect(await read).toMatchObject({ done: true });
    for (let n = 0; n < 5; n++) await turn();
    expect(ends).toEqual([null]);
  });

  test('that cannot be read to their end say why, once, and break off', async () => {
    const ends: unknown[] = [];
    const error = new Error('lost');
    const content = (async function* () {
      yield Uint8Array.of(1);
      await turn();
      throw error;
    })();
    await expect(new Response(byteStream(content, (why) => ends.push(why))).arrayBuffer()).rejects.toThrow('lost');
    expect(ends).toEqual([error]);
  });
});
