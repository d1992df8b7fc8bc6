/** Who asks, and how much of it they may. Keys are known by their SHA-256 only: a store that leaks gives no key away. */
import { HttpError } from './errors.ts';
import type { Guesses } from './rates.ts';

export type Scope = 'read' | 'write';

/** What a key is for. */
export interface ApiKey {
  readonly tenant: string;
  /** `read`: see jobs and models, and quotes. `write`: make, change and erase jobs. */
  readonly scopes: readonly Scope[];
  /** Requests a minute. */
  readonly rpm: number;
  /** Requests at a time; a stream is one until it ends. */
  readonly concurrent: number;
  /** Jobs of its tenant that have not ended, above which it makes no more. Default: any number. */
  readonly jobs?: number | undefined;
}

export interface KeyLookup {
  /** @param sha256 of the key, 64 hex digits. null: no such key. */
  find(sha256: string, signal: AbortSignal): Promise<ApiKey | null>;
}

export interface Caller {
  readonly tenant: string;
  readonly scopes: readonly Scope[];
  /** null: not limited. */
  readonly limits: { readonly key: string; readonly rpm: number; readonly concurrent: number; readonly jobs?: number | undefined } | null;
}

const LOCAL: Caller = { tenant: 'local', scopes: ['read', 'write'], limits: null };

/** Longer ones are nobody's: they are not hashed. */
const KEY_CHARS_MAX = 512;

/**
 * @param remote the address that asks, if it is known: one that has tried too many keys is not listened to, whatever it brings.
 * @throws HttpError invalid_api_key, too_many_bad_keys, foreign_origin
 */
export async function authorize(request: Request, auth: KeyLookup | null, guesses: Guesses, remote: string | undefined): Promise<Caller> {
  if (auth === null) {
    // Nothing can be guessed here, and a page of another site asks from its visitor's own address: refusals are not counted.
    refuseForeign(request);
    return LOCAL;
  }
  guesses.admit(remote);
  try {
    return await callerOf(request, auth);
  } catch (error) {
    if (error instanceof HttpError) guesses.failed(remote);
    throw error;
  }
}

/** @throws HttpError insufficient_scope */
export function requireScope({ scopes }: Caller, scope: Scope): void {
  if (!scopes.includes(scope)) throw new HttpError('insufficient_scope', `The API key has no scope ${scope}.`);
}

async function callerOf(request: Request, auth: KeyLookup): Promise<Caller> {
  const key = /^Bearer ([\x21-\x7e]+)$/i.exec(request.headers.get('authorization') ?? '')?.[1];
  if (key === undefined || key.length > KEY_CHARS_MAX) throw unknownKey('The request needs an API key: authorization: Bearer <key>.');
  const sha256 = await hashOf(key);
  const known = await auth.find(sha256, request.signal);
  if (known === null) throw unknownKey('The API key is not known.');
  return { tenant: known.tenant, scopes: known.scopes, limits: { key: sha256, rpm: known.rpm, concurrent: known.concurrent, jobs: known.jobs } };
}

/**
 * Without keys whoever reaches the server may do everything, and every page in this machine's browsers reaches it: by its own name for our
 * address (DNS rebinding), or by a request across sites that needs no permission.
 */
function refuseForeign(request: Request): void {
  const { host, hostname } = new URL(request.url);
  const origin = request.headers.get('origin');
  if (LOOPBACK.test(hostname) && (origin === null || (URL.canParse(origin) && new URL(origin).host === host))) return;
  throw new HttpError('foreign_origin', 'Without API keys this server answers its own machine only: http://127.0.0.1, http://localhost or http://[::1].');
}

const LOOPBACK = /^(localhost|127(\.\d{1,3}){3}|\[::1\])$/;

/** As keys are stored: 64 hex digits. */
export async function hashOf(key: string): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(key)));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

function unknownKey(message: string): HttpError {
  return new HttpError('invalid_api_key', message, { headers: { 'www-authenticate': 'Bearer' } });
}
