/**
 * Requests a minute and at a time, of each key, and keys that are tried in vain, of each address. The counts are this instance's own: with N instances a key may have up to N times as many,
 * and a new instance begins at nothing. Whoever needs an exact bound puts it before them.
 */
import ipaddr from 'ipaddr.js';

import type { Clock } from '../engine/core/clock.ts';
import type { Caller } from './auth.ts';
import { HttpError } from './errors.ts';
import { HTTP_LIMITS } from './limits.ts';

interface Bucket {
  /** Requests that may come at once; refilled by rpm a minute. */
  tokens: number;
  atMs: number;
  running: number;
}

export interface Admitted {
  /** x-ratelimit-*, as OpenAI's. */
  readonly headers: Readonly<Record<string, string>>;
  /** The request has ended. Idempotent. */
  release(): void;
}

const MINUTE_MS = 60_000;

export class Rates {
  readonly #buckets: Buckets;

  constructor(clock: Clock) {
    this.#buckets = new Buckets(clock);
  }

  /** @throws HttpError rate_limit_exceeded, too_many_requests_at_once; both with Retry-After. */
  admit({ limits }: Caller): Admitted {
    if (limits === null) return { headers: {}, release: () => undefined };
    const { rpm, concurrent } = limits;
    const bucket = this.#buckets.of(limits.key, rpm);
    if (bucket.tokens < 1) {
      const waitS = waitOf(bucket, rpm);
      const headers = { ...rateHeaders(bucket, rpm), 'retry-after': `${waitS}` };
      throw new HttpError('rate_limit_exceeded', `The API key may send ${rpm} requests a minute; try again in ${waitS} s.`, { headers });
    }
    if (bucket.running >= concurrent) {
      const headers = { ...rateHeaders(bucket, rpm), 'retry-after': '1' };
      throw new HttpError('too_many_requests_at_once', `The API key may have ${concurrent} requests at a time.`, { headers });
    }
    bucket.tokens -= 1;
    bucket.running += 1;
    let released = false;
    return {
      headers: rateHeaders(bucket, rpm),
      release: () => {
        if (!released) bucket.running -= 1;
        released = true;
      },
    };
  }
}

/** Slows whoever guesses keys. */
export class Guesses {
  readonly #buckets: Buckets;

  constructor(clock: Clock) {
    this.#buckets = new Buckets(clock);
  }

  /** @param remote undefined: not known, not limited. @throws HttpError too_many_bad_keys, with Retry-After. */
  admit(remote: string | undefined): void {
    if (remote === undefined) return;
    const bucket = this.#buckets.of(networkOf(remote), HTTP_LIMITS.BAD_KEYS_A_MINUTE);
    if (bucket.tokens >= 1) return;
    const waitS = waitOf(bucket, HTTP_LIMITS.BAD_KEYS_A_MINUTE);
    throw new HttpError('too_many_bad_keys', `Too many requests without a known API key came from this address; try again in ${waitS} s.`, { headers: { 'retry-after': `${waitS}` } });
  }

  failed(remote: string | undefined): void {
    if (remote !== undefined) this.#buckets.of(networkOf(remote), HTTP_LIMITS.BAD_KEYS_A_MINUTE).tokens -= 1;
  }
}

/** Those not seen for longest are forgotten first. */
class Buckets {
  readonly #clock: Clock;
  readonly #buckets = new Map<string, Bucket>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  of(key: string, rpm: number): Bucket {
    const now = this.#clock.nowMs();
    const known = this.#buckets.get(key);
    const bucket = known ?? { tokens: rpm, atMs: now, running: 0 };
    bucket.tokens = Math.min(rpm, bucket.tokens + ((now - bucket.atMs) * rpm) / MINUTE_MS);
    bucket.atMs = now;
    // Last in the map is who was seen last.
    this.#buckets.delete(key);
    this.#buckets.set(key, bucket);
    if (this.#buckets.size > HTTP_LIMITS.KEYS_MAX) this.#forgetOne();
    return bucket;
  }

  #forgetOne(): void {
    for (const [key, { running }] of this.#buckets) {
      if (running > 0) continue;
      this.#buckets.delete(key);
      return;
    }
  }
}

/** Who has one address of version 6 has 2^64 of them. */
function networkOf(remote: string): string {
  if (!ipaddr.isValid(remote)) return remote.slice(0, 64);
  const address = ipaddr.process(remote);
  return address.kind() === 'ipv6' ? ipaddr.IPv6.networkAddressFromCIDR(`${address.toString()}/64`).toString() : address.toString();
}

function waitOf({ tokens }: Bucket, rpm: number): number {
  return Math.ceil(((1 - tokens) * MINUTE_MS) / rpm / 1_000);
}

function rateHeaders({ tokens }: Bucket, rpm: number): Readonly<Record<string, string>> {
  return {
    'x-ratelimit-limit-requests': `${rpm}`,
    'x-ratelimit-remaining-requests': `${Math.max(0, Math.floor(tokens))}`,
    'x-ratelimit-reset-requests': `${Math.ceil(((rpm - tokens) * MINUTE_MS) / rpm / 1_000)}s`,
  };
}
