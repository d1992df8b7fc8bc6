/** A model.json for a plain Hugging Face directory or GGUF file: one variant, and of what nobody measured nothing. */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { EngineError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { inspectModel } from '../runtime/native.ts';
import { type Card, type VariantCard, parseCard } from './card.ts';
import { templateIn } from './directory.ts';
import { SHARED } from './files.ts';
import { readBounded } from './registry.ts';

export interface Described {
  readonly name: string;
  readonly source: string;
  readonly revision: string | null;
  readonly licence: string | null;
  readonly files: VariantCard['files'];
}

/** The folder of the only variant. */
const ONLY = 'default';

/**
 * Reads headers, no weights.
 * @throws EngineError as `inspectModel`: what cannot run is not described.
 */
export async function describe(directory: string, { name, source, revision, licence, files }: Described): Promise<Card> {
  const { policy } = await inspectModel(directory, []);
  if (policy.name !== 'dense' && policy.name !== 'dms_borrowed' && policy.name !== 'dms_separate') {
    throw new EngineError('ERR_MODEL_CONFIG', `${directory}: a model.json cannot describe the policy ${policy.name}.`);
  }
  const card: Card = {
    format: 1,
    name,
    description: '',
    source: source.slice(0, 256),
    ...(revision === null ? {} : { revision }),
    licence,
    tokenizer_sha256: files.find(({ path }) => path === 'tokenizer.json')?.sha256 ?? null,
    template_sha256: templateDigest(directory),
    default_variant: ONLY,
    task: null,
    files: files.filter(({ path }) => SHARED.test(path)),
    variants: {
      [ONLY]: {
        compression_ratio: Math.max(1, policy.targetCr),
        directory: ONLY,
        policy: { name: policy.name, window: policy.window, alpha_scale: policy.alphaScale, alpha_offset: policy.alphaOffset },
        files: files.filter(({ path }) => !SHARED.test(path)),
      },
    },
  };
  return parseCard(JSON.stringify(card), directory);
}

/** The text of model.json: the same card is the same text, whose digest is the model's name in the cache. */
export const cardText = (card: Card): string => `${JSON.stringify(card, null, 1)}\n`;

/** null: there is none, or none that this engine renders; running the model says which. */
function templateDigest(directory: string): string | null {
  try {
    const path = join(directory, 'tokenizer_config.json');
    const config = existsSync(path) ? (JSON.parse(readBounded(path, LIMITS.JSON_BYTES_MAX)) as Record<string, unknown>) : {};
    const template = templateIn(directory, config);
    return template === null ? null : createHash('sha256').update(template.source).digest('hex');
  } catch {
    return null;
  }
}
