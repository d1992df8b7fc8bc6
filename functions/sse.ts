/** Server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream */
import { z } from '@hono/zod-openapi';

import type { Clock } from '../engine/core/clock.ts';
import { nextRound } from '../engine/core/turns.ts';

export interface SseOptions {
  readonly clock: Clock;
  /** A comment after so long without a frame, so that nothing between us and the client takes the connection for dead. */
  readonly keepAliveMs: number;
  readonly headers?: Readonly<Record<string, string>>;
  /** Called once: the stream is over. `gone`: because the client went away before its end. */
  readonly onEnd: (gone: boolean) => void;
  /** A frame for what the producer threw, after which the stream ends. */
  readonly onError: (error: unknown) => string;
}

/** One event, for the document. */
export const sseSchema = z.object({ id: z.string().optional(), event: z.string().optional(), data: z.string() }).openapi('ServerSentEvent');

export const KEEP_ALIVE = ': keep-alive\n\n';

/** @param data one line: JSON. */
export function frame(data: string, { id, event }: { readonly id?: string; readonly event?: string } = {}): string {
  return `${id === undefined ? '' : `id: ${id}\n`}${event === undefined ? '' : `event: ${event}\n`}data: ${data}\n\n`;
}

/**
 * Frames are asked for as the client reads: one that does not read makes nobody keep anything for it.
 * @param produce its signal aborts when the client has gone.
 */
export function sseResponse(produce: (signal: AbortSignal) => AsyncIterable<string>, options: SseOptions): Response {
  const gone = new AbortController();
  const utf8 = new TextEncoder();
  const frames = produce(gone.signal)[Symbol.asyncIterator]();
  const ready = new ReadyFrames(frames);
  const pulse = new Pulse(options);
  let over = false;
  const end = (left: boolean) => {
    if (over) return;
    over = true;
    pulse[Symbol.dispose]();
    options.onEnd(left);
  };
  const body = new ReadableStream<Uint8Array>({
    start: (controller) => pulse.start(() => {
      if ((controller.desiredSize ?? 0) > 0) controller.enqueue(utf8.encode(KEEP_ALIVE));
    }),
    async pull(controller) {
      try {
        const text = await ready.next();
        if (over) return;
        pulse.beat();
        if (text !== null) return controller.enqueue(utf8.encode(text));
      } catch (error) {
        if (over) return;
        controller.enqueue(utf8.encode(options.onError(error)));
      }
      end(false);
      controller.close();
    },
    cancel() {
      end(true);
      gone.abort();
      // The producer sees the signal; nobody waits for what it does then.
      void frames.return?.().catch(() => undefined);
    },
  });
  const headers = { ...options.headers, 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-cache, no-transform', 'x-accel-buffering': 'no' };
  return new Response(body, { headers });
}

/** As many characters go out together. */
const CHUNK_CHARS = 16_384;

/** Frames that are made within one turn of the event loop go out as one: a write costs more than a frame, and there may be thousands of both. */
class ReadyFrames {
  readonly #frames: AsyncIterator<string>;
  #asked: Promise<IteratorResult<string>> | null = null;

  constructor(frames: AsyncIterator<string>) {
    this.#frames = frames;
  }

  /** At least one; null: there are no more. @throws what the producer threw, after what it had made before. */
  async next(): Promise<string | null> {
    const first = await this.#ask();
    this.#asked = null;
    if (first.done === true) return null;
    let text = first.value;
    const turn = nextRound();
    while (text.length < CHUNK_CHARS) {
      const next = await Promise.race([this.#ask(), turn]).catch(() => null);
      // Not yet, or the end, or a failure: whoever asks next is told.
      if (next === null || next.done === true) return text;
      this.#asked = null;
      text += next.value;
    }
    return text;
  }

  #ask(): Promise<IteratorResult<string>> {
    return (this.#asked ??= this.#frames.next());
  }
}

/** Notices silence with a timer for every half of the time that may pass, not for every frame: there may be thousands of both. */
class Pulse implements Disposable {
  readonly #clock: Clock;
  readonly #halfMs: number;
  #timer: Disposable | null = null;
  #quiet = false;
  #stopped = false;

  constructor({ clock, keepAliveMs }: SseOptions) {
    this.#clock = clock;
    this.#halfMs = keepAliveMs / 2;
  }

  start(onSilence: () => void): void {
    if (this.#stopped) return;
    const timer = this.#clock.timeout(this.#halfMs);
    this.#timer = timer;
    timer.signal.addEventListener('abort', () => {
      if (this.#stopped) return;
      if (this.#quiet) onSilence();
      this.#quiet = true;
      this.start(onSilence);
    }, { once: true });
  }

  /** A frame was sent. */
  beat(): void {
    this.#quiet = false;
  }

  [Symbol.dispose](): void {
    this.#stopped = true;
    this.#timer?.[Symbol.dispose]();
  }
}
