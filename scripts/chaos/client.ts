/** The API as a stubborn client uses it: whatever breaks, it asks again until it has an answer, and goes on reading after the last event that it has. */
import { pause } from '../../engine/core/waiting.ts';
import { systemClock } from '../../engine/core/clock.ts';
import { readSse } from '../../test/helpers/sse.ts';

const AGAIN_MS = 200;
/** Of one request; a stream may take longer. */
const ANSWER_MS_MAX = 20_000;

export class Client {
  readonly #url: string;
  readonly #signal: AbortSignal;
  readonly #headers: Readonly<Record<string, string>>;
  /** Times that a request or a stream had to be begun again. */
  again = 0;

  constructor(url: string, signal: AbortSignal, apiKey = '') {
    this.#url = url.replace(/\/$/, '');
    this.#signal = signal;
    this.#headers = apiKey === '' ? {} : { authorization: `Bearer ${apiKey}` };
  }

  /** What it answered in the end. @throws Error if it refuses, which no fault excuses. */
  async ask<T>(method: 'GET' | 'POST' | 'PUT', at: string, body?: unknown): Promise<T> {
    for (;;) {
      const found = await this.#once<T>(method, at, body);
      if (found !== null) return found.value;
      this.again++;
      await pause(systemClock, AGAIN_MS, this.#signal);
    }
  }

  /** Every numbered event, once, in order, as `id event data`. */
  async follow(job: string, events: string[] = []): Promise<readonly string[]> {
    let last: string | null = null;
    for (let isOver = false; !isOver;) {
      try {
        const headers = { ...this.#headers, ...(last === null ? {} : { 'last-event-id': last }) };
        const response = await fetch(`${this.#url}/v1/jobs/${job}/events`, { headers, signal: this.#signal });
        if (response.status === 204) return events;
        if (response.status !== 200) throw new Error(`events of ${job}: ${response.status}`);
        await readSse(response, ({ id, event, data }) => {
          isOver = event === 'end';
          // After its end it is over by itself.
          if (id === null || isOver) return false;
          last = id;
          events.push(`${id} ${event} ${JSON.stringify(data)}`);
          return false;
        });
      } catch {
        // Broken off, or nobody there.
      }
      if (isOver) return events;
      this.again++;
      await pause(systemClock, AGAIN_MS, this.#signal);
    }
    return events;
  }

  /** null: no answer, or one that asks to come back. */
  async #once<T>(method: string, at: string, body: unknown): Promise<{ readonly value: T } | null> {
    const signal = AbortSignal.any([this.#signal, AbortSignal.timeout(ANSWER_MS_MAX)]);
    let status: number;
    let text: string;
    try {
      const response = await fetch(this.#url + at, {
        method, signal, ...(body === undefined ? { headers: this.#headers } : { body: JSON.stringify(body), headers: { ...this.#headers, 'content-type': 'application/json' } }),
      });
      [status, text] = [response.status, await response.text()];
    } catch {
      return null;
    }
    if (status < 300) return { value: JSON.parse(text) as T };
    if (status >= 500 || status === 429 || (status === 409 && at.endsWith('/result'))) return null;
    throw new Error(`${method} ${at}: ${status} ${text.slice(0, 500)}`);
  }
}
