/** From what a person writes to a store: `file:/var/kv`, a plain path, `s3://bucket/prefix`, `memory:`. */
import { existsSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { type Clock, wallClockMs } from '../core/clock.ts';
import { EngineError } from '../core/errors.ts';
import type { ObjectStore } from '../ports/object-store.ts';
import { REGION_ELSEWHERE } from './aws-address.ts';
import { openFilesystemStore } from './filesystem.ts';
import { MemoryStore } from './memory.ts';
import { S3_FORM, parseS3Url } from './s3-url.ts';

const SCHEME = /^([A-Za-z][A-Za-z0-9+.-]+):/;

export interface OpenStoreOptions {
  readonly environment?: NodeJS.ProcessEnv;
  readonly clock?: Clock;
  /** Who only reads: a directory that is not there is a mistake, not an empty store. */
  readonly mustExist?: boolean;
}

/**
 * Opens nothing over the network yet: `probe` does. `memory:` is a new store each time.
 * @example const store = await openStore('s3://kv-bucket/jobs');
 * @throws EngineError ERR_STORE_CONFIG
 */
export async function openStore(url: string, options: OpenStoreOptions = {}): Promise<ObjectStore> {
  if (url.includes('\0')) throw refused(url, 'holds a NUL character');
  const scheme = SCHEME.exec(url)?.[1]?.toLowerCase();
  if (scheme === undefined) {
    if (url.trim() === '') throw refused(url, 'is empty');
    return await openDirectory(url, path.resolve(url), options);
  }
  if (scheme === 'file') return await openDirectory(url, pathOf(url), options);
  if (scheme === 's3') return await openS3(url, options);
  if (scheme === 'memory') {
    if (url.slice('memory:'.length) !== '') throw refused(url, 'has a name, but a memory: store has none');
    return new MemoryStore({ nowMs: wallClockMs, ...(options.clock === undefined ? {} : { clock: options.clock }) });
  }
  throw refused(url, `has the unknown scheme "${scheme}:"`);
}

async function openDirectory(url: string, directory: string, { mustExist = false }: OpenStoreOptions): Promise<ObjectStore> {
  if (mustExist && !existsSync(directory)) throw refused(url, 'does not exist');
  return await openFilesystemStore(directory);
}

function pathOf(url: string): string {
  const rest = url.slice('file:'.length);
  if (!rest.startsWith('/')) throw refused(url, 'needs an absolute path after file: (or write a plain path)');
  if (/[?#]/.test(rest)) throw refused(url, 'has a query or fragment');
  try {
    return fileURLToPath(url);
  } catch (cause) {
    throw refused(url, 'names another host or is badly encoded', cause);
  }
}

/** The SDK is loaded only here, so that a local run does without its start-up time. */
async function openS3(url: string, { environment = process.env, clock }: OpenStoreOptions): Promise<ObjectStore> {
  const place = parseS3Url(url);
  if (place === null) throw refused(url, S3_FORM);
  const endpoint = environment.RUMINATE_S3_ENDPOINT ?? environment.AWS_ENDPOINT_URL_S3 ?? null;
  if (endpoint !== null && !(URL.canParse(endpoint) && /^https?:$/.test(new URL(endpoint).protocol))) {
    throw refused(url, `has an endpoint that is no http(s) URL: ${JSON.stringify(endpoint)}`);
  }
  const { S3Store } = await import('./s3.ts');
  const hasRegion = ['AWS_REGION', 'AWS_PROFILE', 'AWS_CONFIG_FILE'].some((name) => environment[name] !== undefined);
  return new S3Store({
    ...place,
    endpoint,
    pathStyle: pathStyleOf(environment, url),
    ...(endpoint === null || hasRegion ? {} : { region: REGION_ELSEWHERE }),
    ...(clock === undefined ? {} : { clock }),
  });
}

function pathStyleOf({ RUMINATE_S3_PATH_STYLE: value = '' }: NodeJS.ProcessEnv, url: string): boolean {
  if (!['', '0', '1', 'false', 'true'].includes(value)) throw refused(url, `cannot be opened: RUMINATE_S3_PATH_STYLE is 1 or 0, not ${JSON.stringify(value)}`);
  return value === '1' || value === 'true';
}

function refused(url: string, why: string, cause?: unknown): EngineError {
  // Someone may have written credentials into it.
  const shown = url.replace(/\/\/[^/]*@/, '//…@').slice(0, 200);
  return new EngineError('ERR_STORE_CONFIG', `The store ${JSON.stringify(shown)} ${why}.`, { cause });
}
