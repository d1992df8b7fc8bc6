/** API keys as JSON that holds their hashes only: who has it cannot ask with any of them. */
import { z } from '@hono/zod-openapi';

import { EngineError } from '../engine/core/errors.ts';
import { isNamePart } from '../engine/kv/names.ts';
import type { ApiKey, KeyLookup } from './auth.ts';

const KEYS_MAX = 100_000;

const schema = z.array(z.strictObject({
  /** Of the key: `printf %s "$KEY" | sha256sum`. */
  sha256: z.string().regex(/^[0-9a-f]{64}$/, 'must be 64 hex digits'),
  tenant: z.string().refine(isNamePart, 'must have 1 to 64 letters, digits, ".", "_" or "-"'),
  scopes: z.array(z.enum(['read', 'write'])).min(1).default(['read', 'write']),
  /** Requests a minute, and at a time. */
  rpm: z.int().min(1).max(1_000_000).default(600),
  concurrent: z.int().min(1).max(10_000).default(32),
  /** Of its tenant that have not ended. */
  jobs: z.int().min(1).max(100_000).optional(),
})).max(KEYS_MAX);

/** @param where for messages. @throws EngineError ERR_OPTION, naming the field. */
export function parseApiKeys(text: string, where: string): KeyLookup {
  const keys = new Map<string, ApiKey>();
  for (const { sha256, ...key } of parse(text, where)) {
    if (keys.has(sha256)) throw new EngineError('ERR_OPTION', `${where}: the key ${sha256.slice(0, 8)}… is there twice.`);
    keys.set(sha256, key);
  }
  return { find: async (sha256) => keys.get(sha256) ?? null };
}

function parse(text: string, where: string): z.infer<typeof schema> {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw new EngineError('ERR_OPTION', `${where} is not JSON.`, { cause });
  }
  const parsed = schema.safeParse(json);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw new EngineError('ERR_OPTION', `${where}: ${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'invalid'}.`);
}
