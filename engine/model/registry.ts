/** From what a request calls a model to where it is: `countdown`, `countdown@cr8`, or a path to a Hugging Face directory or GGUF file. */
import { closeSync, constants, existsSync, fstatSync, openSync, readSync, readdirSync, statSync } from 'node:fs';
import { delimiter, dirname, isAbsolute, join, resolve as resolvePath } from 'node:path';
import { fileURLToPath } from 'node:url';
import { EngineError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { cacheRoot } from './cache.ts';
import { type Card, NAME_PATTERN, type VariantCard, chooseVariant, parseCard } from './card.ts';

export interface ResolvedModel {
  /** As the registry knows it; for a path, the path. */
  readonly name: string;
  /** Or the GGUF file. */
  readonly directory: string;
  /** null: a plain Hugging Face directory or GGUF file has no variants. */
  readonly variant: string | null;
  readonly card: Card | null;
  readonly variantCard: VariantCard | null;
}

const GGUF = '.gguf';
const READ_BYTES = 1 << 20;

export interface ResolveOptions {
  /** Chooses the variant with this compression ratio; of a plain directory `prepare` checks it, who knows what it was trained for. */
  readonly cr?: number | undefined;
  /** Directories that hold models, first wins; default: RUMINATE_MODELS, then the bundled ones. */
  readonly roots?: readonly string[];
}

/** The directories searched for names: RUMINATE_MODELS (a path list), `models/` of this package, then what was pulled. */
export function modelRoots(environment: NodeJS.ProcessEnv = process.env): readonly string[] {
  const listed = (environment.RUMINATE_MODELS ?? '').split(delimiter).filter((path) => path !== '');
  const bundled = bundledRoot();
  const pulled = join(cacheRoot(environment), 'names');
  return [...listed, ...(bundled === null ? [] : [bundled]), ...(isDirectory(pulled) ? [pulled] : [])];
}

/** The bundle (dist/) and the sources (engine/model/) lie at different depths: climb to the package. */
function bundledRoot(): string | null {
  let at = dirname(fileURLToPath(import.meta.url));
  for (;;) {
    if (existsSync(join(at, 'package.json')) && existsSync(join(at, 'models'))) return join(at, 'models');
    const up = dirname(at);
    if (up === at) return null;
    at = up;
  }
}

/**
 * @example resolve('countdown', { cr: 4 }).directory // …/models/countdown/cr4
 * @throws EngineError ERR_MODEL_NOT_FOUND, listing what there is.
 */
export function resolve(model: string, options: ResolveOptions = {}): ResolvedModel {
  const roots = options.roots ?? modelRoots();
  return looksLikePath(model) ? resolveDirectory(model, options.cr) : resolveName(model, options.cr, roots);
}

/** Names of every model and variant that `resolve` accepts. */
export function listModels(roots: readonly string[] = modelRoots()): readonly string[] {
  const names = new Set<string>();
  for (const root of roots) {
    for (const entry of isDirectory(root) ? readdirSync(root).sort() : []) {
      const directory = join(root, entry);
      if (!NAME_PATTERN.test(entry) || !isModel(directory)) continue;
      names.add(entry);
      if (existsSync(join(directory, 'model.json'))) {
        for (const variant of Object.keys(readCard(directory).variants)) names.add(`${entry}@${variant}`);
      }
    }
  }
  return [...names];
}

function resolveName(model: string, cr: number | undefined, roots: readonly string[]): ResolvedModel {
  const [name = '', variant, ...rest] = model.split('@');
  const wellFormed = NAME_PATTERN.test(name) && rest.length === 0 && (variant === undefined || NAME_PATTERN.test(variant));
  const root = wellFormed ? roots.find((candidate) => isModel(join(candidate, name))) : undefined;
  if (root === undefined) {
    const known = listModels(roots);
    const there = known.length === 0 ? `none in ${roots.join(', ') || 'no directory'}` : known.join(', ');
    throw new EngineError('ERR_MODEL_NOT_FOUND', `No model ${quote(model)}; there is: ${there}; or give a path to a model directory or GGUF file.`);
  }
  return choose(name, join(root, name), variant, cr);
}

function resolveDirectory(path: string, cr: number | undefined): ResolvedModel {
  const whole = resolvePath(path);
  if (isModel(whole) || isGguf(whole)) return choose(path, whole, undefined, cr);
  const at = path.lastIndexOf('@');
  const base = at > 0 ? resolvePath(path.slice(0, at)) : whole;
  if (at > 0 && isModel(base)) return choose(path.slice(0, at), base, path.slice(at + 1), cr);
  throw new EngineError('ERR_MODEL_NOT_FOUND', `No model at ${quote(path)}: a directory with config.json or model.json, or a GGUF file, is needed.`);
}

/** Of a directory that is known to hold a model. @throws EngineError ERR_MODEL_NOT_FOUND, ERR_OPTION */
export function choose(name: string, directory: string, variant: string | undefined, cr: number | undefined): ResolvedModel {
  if (!existsSync(join(directory, 'model.json'))) {
    if (variant !== undefined) throw new EngineError('ERR_MODEL_NOT_FOUND', `${name} is a plain model without variants; got ${quote(variant)}.`);
    return { name, directory, variant: null, card: null, variantCard: null };
  }
  const card = readCard(directory);
  const chosen = chooseVariant(name, card, variant, cr);
  const variantCard = card.variants[chosen];
  return { name, directory: join(directory, variantCard?.directory ?? ''), variant: chosen, card, variantCard: variantCard ?? null };
}

function readCard(directory: string): Card {
  return parseCard(readBounded(join(directory, 'model.json'), LIMITS.JSON_BYTES_MAX), directory);
}

/**
 * A text file of a model directory. Anything but a regular file is refused before it is read (a pipe has no end, a device no size),
 * and of a file that is larger than it says no more than the bound is.
 * @throws EngineError ERR_MODEL_FILE
 */
export function readBounded(path: string, bytesMax: number): string {
  let file: number;
  try {
    // Without it opening a pipe waits for a writer.
    file = openSync(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
  } catch (cause) {
    throw new EngineError('ERR_MODEL_FILE', `${path} cannot be read.`, { cause });
  }
  try {
    const stat = fstatSync(file);
    if (!stat.isFile()) throw new EngineError('ERR_MODEL_FILE', `${path} is not a regular file.`);
    if (stat.size > bytesMax) throw new EngineError('ERR_MODEL_FILE', `${path} is larger than ${bytesMax} bytes; got ${stat.size}.`);
    return readAll(file, path, bytesMax);
  } finally {
    closeSync(file);
  }
}

function readAll(file: number, path: string, bytesMax: number): string {
  const chunks: Buffer[] = [];
  let size = 0;
  for (;;) {
    const chunk = Buffer.allocUnsafe(Math.min(READ_BYTES, bytesMax + 1 - size));
    let got: number;
    try {
      got = readSync(file, chunk);
    } catch (cause) {
      throw new EngineError('ERR_MODEL_FILE', `${path} cannot be read.`, { cause });
    }
    if (got === 0) return Buffer.concat(chunks, size).toString('utf8');
    chunks.push(chunk.subarray(0, got));
    size += got;
    if (size > bytesMax) throw new EngineError('ERR_MODEL_FILE', `${path} is larger than ${bytesMax} bytes.`);
  }
}

function looksLikePath(model: string): boolean {
  return isAbsolute(model) || model.startsWith('.') || model.includes('/') || model.includes('\\') || model.endsWith(GGUF);
}

function isModel(directory: string): boolean {
  if (!isDirectory(directory)) return false;
  return existsSync(join(directory, 'model.json')) || existsSync(join(directory, 'config.json')) || readdirSync(directory).some((name) => name.endsWith(GGUF));
}

function isGguf(path: string): boolean {
  return path.endsWith(GGUF) && (statSync(path, { throwIfNoEntry: false })?.isFile() ?? false);
}

function isDirectory(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}

function quote(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}…` : text);
}
