/** From what a person writes to a key: `file:PATH`, `kms:KEY`. docs/KEYS.md */
import path from 'node:path';

import type { Clock } from '../core/clock.ts';
import { EngineError } from '../core/errors.ts';
import type { KeyProvider } from '../ports/keys.ts';
import { REGION_ELSEWHERE } from './aws-address.ts';
import { readKeyFile } from './key-file.ts';

const FORMS = 'file:PATH (made by `ruminate key new PATH`) or kms:KEY (key id, ARN or alias/NAME)';
const KMS_ARN = /^arn:aws[a-z-]{0,16}:kms:([a-z0-9-]{1,32}):\d{12}:(?:key|alias)\/[A-Za-z0-9/_-]{1,256}$/;
const KMS_NAME = /^(?:alias\/[A-Za-z0-9/_-]{1,250}|[A-Za-z0-9-]{1,64})$/;

export interface OpenKeyOptions {
  readonly environment?: NodeJS.ProcessEnv;
  readonly clock?: Clock;
}

/**
 * Reads a key file now; asks nothing of KMS yet.
 * @example const provider = await openKeyProvider('kms:alias/ruminate');
 * @throws EngineError ERR_KEY; never shows the URL, which may be a key put in the wrong place.
 */
export async function openKeyProvider(url: string, options: OpenKeyOptions = {}): Promise<KeyProvider> {
  const [, scheme = '', rest = ''] = /^([a-z]+):(.+)$/s.exec(url) ?? [];
  if (scheme === 'file') return await readKeyFile(path.resolve(rest));
  if (scheme === 'kms') return await openKms(rest, options);
  throw new EngineError('ERR_KEY', `The key is named neither ${FORMS.replace(' or ', ' nor ')}.`);
}

/** RUMINATE_KEY; null: unset, and what is stored is stored in the clear. An empty one is refused: it would do so unnoticed. */
export async function keyProviderOf(options: OpenKeyOptions = {}): Promise<KeyProvider | null> {
  const { RUMINATE_KEY: url } = options.environment ?? process.env;
  if (url === undefined) return null;
  if (url === '') throw new EngineError('ERR_KEY', `RUMINATE_KEY is empty: unset it to store in the clear, or set it to ${FORMS}.`);
  return await openKeyProvider(url, options);
}

/** The SDK is loaded only here, so that whoever needs no KMS does without its start-up time. */
async function openKms(keyId: string, { environment = process.env, clock }: OpenKeyOptions): Promise<KeyProvider> {
  const region = KMS_ARN.exec(keyId)?.[1];
  if (region === undefined && !KMS_NAME.test(keyId)) throw new EngineError('ERR_KEY', 'What follows kms: is no key id, key ARN, alias/NAME or alias ARN.');
  const endpoint = environment.AWS_ENDPOINT_URL_KMS ?? null;
  if (endpoint !== null && !(URL.canParse(endpoint) && /^https?:$/.test(new URL(endpoint).protocol))) {
    throw new EngineError('ERR_KEY', 'AWS_ENDPOINT_URL_KMS is no http(s) URL.');
  }
  const { KmsKeys } = await import('./kms.ts');
  const hasRegion = ['AWS_REGION', 'AWS_PROFILE', 'AWS_CONFIG_FILE'].some((name) => environment[name] !== undefined);
  const elsewhere = endpoint !== null && !hasRegion ? REGION_ELSEWHERE : undefined;
  const chosen = region ?? elsewhere;
  return new KmsKeys({ keyId, endpoint, ...(chosen === undefined ? {} : { region: chosen }), ...(clock === undefined ? {} : { clock }) });
}
