/** API keys from a file, or from the environment, as a container is given a secret. */
import { readFile } from 'node:fs/promises';

import { EngineError } from '../engine/core/errors.ts';
import { parseApiKeys } from '../functions/api-keys.ts';
import type { KeyLookup } from '../functions/auth.ts';

/** @throws EngineError ERR_OPTION, naming the field. */
export async function readApiKeys(file: string): Promise<KeyLookup> {
  return parseApiKeys(await read(file), `--api-keys ${file}`);
}

/** null: whoever reaches the server may ask. @param file goes before RUMINATE_API_KEYS. @throws EngineError as `readApiKeys`. */
export async function apiKeysOf(file: string | undefined, { RUMINATE_API_KEYS: text = '' }: NodeJS.ProcessEnv = process.env): Promise<KeyLookup | null> {
  if (file !== undefined) return await readApiKeys(file);
  return text === '' ? null : parseApiKeys(text, 'RUMINATE_API_KEYS');
}

async function read(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (cause) {
    throw new EngineError('ERR_OPTION', `--api-keys ${file} cannot be read.`, { cause });
  }
}
