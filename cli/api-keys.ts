/** API keys from a file. */
import { readFile } from 'node:fs/promises';

import { EngineError } from '../engine/core/errors.ts';
import { parseApiKeys } from '../functions/api-keys.ts';
import type { KeyLookup } from '../functions/auth.ts';

/** @throws EngineError ERR_OPTION, naming the field. */
export async function readApiKeys(file: string): Promise<KeyLookup> {
  return parseApiKeys(await read(file), `--api-keys ${file}`);
}

async function read(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (cause) {
    throw new EngineError('ERR_OPTION', `--api-keys ${file} cannot be read.`, { cause });
  }
}
