/** The shape of the repository, as tests: who may import whom, how long a file may be, what may not be written down. */
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';

import { ERROR_CODES } from '../engine/core/errors.ts';

const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');

const LINES_MAX = 400;
/** Longer files, each with its reason: `'path': 'why'`. */
const LONG_FILES: Readonly<Record<string, string>> = {
  'engine/runtime/native.ts': 'the boundary is declared in one place, so that the addon and its callers have one page to agree on',
};

/** Who may parse with zod: edges, where what comes in (a request, a card file) is not yet known to be true. */
const ZOD_FILES = [/^engine\/job\/((stored|sealed)-)?spec\.ts$/, /^engine\/model\/card\.ts$/, /^engine\/kv\/(head|manifest)\.ts$/, /^engine\/(control|webhook)\/records\.ts$/, /^cli\//, /^functions\//, /^infra\/config\.ts$/];

// Other people's files are kept as they are (native/third_party/README.md).
const tracked = listFiles().filter((file) => !file.startsWith('native/third_party/'));
const typescript = tracked.filter((file) => /^(engine|cli|functions|infra|scripts)\/.*\.ts$/.test(file));
const read = (file: string) => readFileSync(path.join(ROOT, file), 'utf8');

describe('layers', () => {
  test('engine knows no HTTP, no cloud and none of its callers', () => {
    const banned = /^(node:https?|node:http2|node:net|hono|@hono\/|@aws-sdk\/|aws-|commander|log-update)/;
    const outside = /^(functions|cli|infra|scripts|test)\//;
    const adapter = /^engine\/adapters\//;
    expect(importsOf(within('engine')).filter(({ from, to }) => (banned.test(to) && !adapter.test(from)) || outside.test(to))).toEqual([]);
  });

  test('nothing of engine but its adapters imports an adapter', () => {
    const wrong = importsOf(within('engine')).filter(({ from, to }) => to.startsWith('engine/adapters/') && !from.startsWith('engine/adapters/'));
    expect(wrong).toEqual([]);
  });

  test('the control plane reaches the native engine through its shelf and nowhere else', () => {
    const imports = importsOf(within('engine'), { values: true });
    const reached = new Set(within('engine/control').filter((file) => file !== 'engine/control/native-shelf.ts'));
    for (const file of reached) for (const { from, to } of imports) if (from === file) reached.add(to);
    expect(reached.size).toBeGreaterThan(20);
    expect([...reached].filter((file) => file.startsWith('engine/runtime/') || file === 'engine/control/native-shelf.ts')).toEqual([]);
  });

  test('functions call engine use cases and never the native boundary, the CLI or scripts', () => {
    const wrong = importsOf(within('functions')).filter(({ to }) => /^(cli|scripts|infra|native|engine\/runtime)\//.test(to));
    expect(wrong).toEqual([]);
  });

  test('infra imports nothing of functions but env.ts, of engine but what things cost, and nothing of cli', () => {
    const allowed = ['functions/env.ts', 'engine/core/prices.ts', 'engine/job/cost.ts', 'engine/job/idle.ts'];
    const wrong = importsOf(within('infra')).filter(({ to }) => /^(engine|cli|functions|native)\//.test(to) && !allowed.includes(to));
    expect(wrong).toEqual([]);
  });

  test('only engine/runtime/native.ts loads the addon', () => {
    const loaders = typescript.filter((file) => /\bruminate\.node\b|process\.dlopen|\.node['"`]\)/.test(read(file)));
    expect(loaders.filter((file) => file !== 'engine/runtime/native.ts')).toEqual([]);
  });

  test('zod stays at the edges', () => {
    const users = importsOf(typescript).filter(({ to }) => to === 'zod' || to.startsWith('zod/'));
    expect(users.filter(({ from }) => !ZOD_FILES.some((allowed) => allowed.test(from)))).toEqual([]);
  });

  test('modules of engine, cli and functions form no cycle', () => {
    const graph = new Map<string, string[]>();
    for (const { from, to } of importsOf([...within('engine'), ...within('cli'), ...within('functions')], { values: true })) {
      graph.set(from, [...(graph.get(from) ?? []), to]);
    }
    expect(cycleIn(graph)).toBeNull();
  });
});

describe('error codes', () => {
  test('every code of native/core/status.h is one of engine/core/errors.ts', () => {
    const native = [...read('native/core/status.h').matchAll(/"(ERR_[A-Z_]+)"/g)].map((match) => match[1] ?? '');
    expect(native.length).toBeGreaterThan(0);
    expect(native.filter((code) => !Object.hasOwn(ERROR_CODES, code))).toEqual([]);
  });

  test('no source names a code that is not in the table', () => {
    const sources = tracked.filter((file) => /^(engine|cli|functions|native)\/.*\.(ts|cc|h)$/.test(file));
    const unknown = sources.flatMap((file) =>
      [...read(file).matchAll(/['"](ERR_[A-Z]+(?:_[A-Z]+)*)['"]/g)]
        .map((match) => match[1] ?? '')
        .filter((code) => !Object.hasOwn(ERROR_CODES, code) && !NODE_CODES.test(code))
        .map((code) => `${file}: ${code}`),
    );
    expect(unknown).toEqual([]);
  });
});

describe('files', () => {
  test(`no source is over ${LINES_MAX} lines without a reason`, () => {
    const sources = tracked.filter((file) => /\.(ts|mjs|cc|h|py|sh)$/.test(file));
    const long = sources.filter((file) => read(file).split('\n').length - 1 > LINES_MAX);
    expect(long.filter((file) => !Object.hasOwn(LONG_FILES, file))).toEqual([]);
  });

  test('no tracked file names a folder of somebody\'s machine or a registry host', () => {
    const machine = new RegExp(['/(?:home|Users|work|root)/[a-z]', 'C:\\\\Users', 'registry\\.npmjs\\.org/-/', 'https?://[a-z0-9.-]*(?:pypi|npmjs|artifactory|nexus)'].join('|'));
    const text = tracked.filter((file) => /\.(ts|mjs|js|json|cc|h|py|sh|md|yml|yaml|toml|svg)$|(^|\/)(Makefile|run)$/.test(file));
    // A lock file holds the public registry's addresses by definition.
    const wrong = text.filter((file) => !file.endsWith('package-lock.json') && file !== 'test/tidy.test.ts' && machine.test(read(file)));
    expect(wrong).toEqual([]);
  });

  test('scripts named in package.json exist', () => {
    const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> };
    const named = Object.values(scripts).flatMap((line) => line.match(/scripts\/[\w.-]+/g) ?? []);
    expect(named.filter((file) => !existsSync(path.join(ROOT, file)))).toEqual([]);
  });
});

/** Node's own error codes that code may compare with. */
const NODE_CODES = /^ERR_(MODULE_NOT_FOUND|DLOPEN_FAILED|INVALID_ARG_(TYPE|VALUE)|PARSE_ARGS_\w+|STREAM_\w+|SCRIPT_EXECUTION_TIMEOUT|WORKER_OUT_OF_MEMORY)$/;

function within(folder: string): string[] {
  return typescript.filter((file) => file.startsWith(`${folder}/`));
}

/** What git tracks or would track; without git (an unpacked archive), what lies in the source folders. */
function listFiles(): string[] {
  try {
    const out = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard'], { cwd: ROOT, encoding: 'utf8' });
    return out.split('\n').filter((file) => file !== '' && existsSync(path.join(ROOT, file)));
  } catch {
    return ['bin', 'cli', 'engine', 'functions', 'infra', 'native', 'scripts', 'test'].flatMap(walk);
  }
}

function walk(folder: string): string[] {
  if (!existsSync(path.join(ROOT, folder))) return [];
  return readdirSync(path.join(ROOT, folder)).flatMap((name) => {
    const file = `${folder}/${name}`;
    return statSync(path.join(ROOT, file)).isDirectory() ? walk(file) : [file];
  });
}

interface Import {
  readonly from: string;
  /** Path in the repository, or the package as written. */
  readonly to: string;
}

/** `values`: leaves out `import type`, which is gone when the program runs. */
function importsOf(files: readonly string[], { values = false } = {}): Import[] {
  return files.flatMap((from) => {
    const statements = read(from).matchAll(/(?:^|\n)\s*(?:import|export)\s+(type\s+)?(?:[^'";]*?\sfrom\s+)?['"]([^'"]+)['"]|\bimport\(\s*['"]([^'"]+)['"]\s*\)/g);
    return [...statements]
      .filter((match) => !(values && match[1] !== undefined))
      .map((match) => match[2] ?? match[3] ?? '')
      .map((to) => ({ from, to: to.startsWith('.') ? path.posix.normalize(path.posix.join(path.posix.dirname(from), to)) : to }));
  });
}

/** A cycle as the files on it, or null. */
function cycleIn(graph: ReadonlyMap<string, readonly string[]>): string[] | null {
  const done = new Set<string>();
  const visit = (node: string, trail: string[]): string[] | null => {
    if (trail.includes(node)) return [...trail.slice(trail.indexOf(node)), node];
    if (done.has(node)) return null;
    for (const next of graph.get(node) ?? []) {
      const found = visit(next, [...trail, node]);
      if (found !== null) return found;
    }
    done.add(node);
    return null;
  };
  for (const node of graph.keys()) {
    const found = visit(node, []);
    if (found !== null) return found;
  }
  return null;
}
