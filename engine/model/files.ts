/** Which files of a published directory make a model, and in what order they are worth fetching. */
import { EngineError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { FILE_PATTERN } from './card.ts';

/** What the loader, the tokenizer and a reader use; the same weights in other formats are left where they are. */
const WANTED = /^(.*\.safetensors|.*\.safetensors\.index\.json|config\.json|generation_config\.json|tokenizer\.json|tokenizer_config\.json|special_tokens_map\.json|chat_template\.jinja|README\.md|LICEN[CS]E(\.\w+)?|NOTICE(\.\w+)?)$/;

/** Weights again, in the layout of their maker. */
const UNWANTED = /^consolidated/;

/** Files that stand beside the variants of a model and belong to all of them. */
export const SHARED = /^(README\.md|LICEN[CS]E(\.\w+)?|NOTICE(\.\w+)?)$/;

interface Named {
  readonly path: string;
  readonly bytes: number;
}

/**
 * Of a directory that holds more than a model. A GGUF file is a model by itself.
 * @param only the file asked for; null: the directory's model.
 * @throws EngineError ERR_MODEL_NOT_FOUND, ERR_MODEL_FILE for names that would leave the directory.
 */
export function modelFiles<T extends Named>(found: readonly T[], only: string | null, where: string): T[] {
  for (const { path } of found) {
    if (path.startsWith('/') || path.includes('\\') || path.includes('\0') || path.split('/').some((part) => part === '..' || part === '.' || part === '')) {
      throw new EngineError('ERR_MODEL_FILE', `${where} has a file named ${JSON.stringify(path.slice(0, 80))}, which would leave its folder.`);
    }
  }
  const here = found.filter(({ path }) => FILE_PATTERN.test(path));
  const chosen = only === null ? wholeModel(here, where) : here.filter(({ path }) => path === only);
  if (chosen.length === 0) {
    throw new EngineError('ERR_MODEL_NOT_FOUND', only === null ? `${where} has no config.json with weights and no GGUF file.` : `${where} has no file ${JSON.stringify(only.slice(0, 80))}.`);
  }
  if (chosen.length > LIMITS.MODEL_FILES_MAX) {
    throw new EngineError('ERR_MODEL_FILE', `${where} has ${chosen.length} files; at most ${LIMITS.MODEL_FILES_MAX} make a model.`);
  }
  for (const { path, bytes } of chosen) {
    if (!Number.isSafeInteger(bytes) || bytes < 0 || bytes > LIMITS.MODEL_FILE_BYTES_MAX) {
      throw new EngineError('ERR_MODEL_FILE', `${where}: ${path} says it has ${bytes} bytes.`);
    }
  }
  return chosen;
}

function wholeModel<T extends Named>(here: readonly T[], where: string): T[] {
  const wanted = here.filter(({ path }) => WANTED.test(path) && !UNWANTED.test(path));
  if (wanted.some(({ path }) => path === 'config.json') && wanted.some(({ path }) => path.endsWith('.safetensors'))) return wanted;
  const gguf = here.filter(({ path }) => path.endsWith('.gguf'));
  if (gguf.length > 1) {
    throw new EngineError('ERR_OPTION', `${where} has several GGUF files; name one of: ${gguf.map(({ path }) => path).join(', ')}.`);
  }
  return gguf;
}

/**
 * Small files first (what is wrong with a model shows there), then weights by name: shards are numbered from the embedding and the
 * first layers up.
 */
export function inFetchOrder<T extends Named>(files: readonly T[]): T[] {
  const isWeights = ({ path }: Named) => /\.(safetensors|gguf)$/.test(path);
  return [...files].sort((a, b) => Number(isWeights(a)) - Number(isWeights(b)) || (a.path < b.path ? -1 : 1));
}
