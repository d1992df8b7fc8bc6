#!/usr/bin/env node
/**
 * Builds what a fresh checkout lacks: `node scripts/build.mjs [deps] [native] [bundle]` (default: all three).
 * Plain JavaScript with node: built-ins only, because it runs before there are dependencies.
 * @example import { buildNative } from './build.mjs'; await buildNative();
 */
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, lstatSync, mkdirSync, readFileSync, readdirSync, realpathSync, rmSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

export const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const LOCK = path.join(ROOT, 'build', '.lock');
const LOCK_WAIT_MS_MAX = 15 * 60_000;

/** A failure the user can act on: one sentence, printed without a stack. */
export class BuildError extends Error {}

/** Installs the dependencies of package-lock.json unless they are there. Touches no network when they are. */
export async function ensureDeps() {
  if (depsMatch()) return;
  await locked(async () => {
    if (depsMatch()) return;
    // npm ci begins by removing what is there, also behind a link, which somebody else may be using.
    if (lstatSync(path.join(ROOT, 'node_modules'), { throwIfNoEntry: false })?.isSymbolicLink()) {
      throw new BuildError('node_modules is a link to another checkout, whose packages are not those of package-lock.json: run npm ci there, or remove the link.');
    }
    say('installing dependencies (npm ci, once)');
    const npm = process.platform === 'win32' ? 'npm.cmd' : 'npm';
    const result = await run(npm, ['ci', '--no-audit', '--no-fund', '--loglevel=error']);
    if (result.code !== 0) throw new BuildError(`npm ci failed; it needs the npm registry.\n${result.log}`);
  });
}

/** Compiles build/native/ruminate.node, or another goal of native/Makefile. Does nothing if it is up to date (make decides). */
export async function buildNative({ goal = 'addon', flavour = 'release', compiler = null } = {}) {
  const make = findTool(process.env.MAKE ? [process.env.MAKE] : ['make', 'gmake']);
  const cxx = compiler ?? findTool([...(process.env.CXX ? [process.env.CXX] : []), 'c++', 'g++', 'clang++']);
  if (make === null || cxx === null) {
    const missing = [make === null ? 'make' : null, cxx === null ? 'a C++20 compiler' : null].filter(Boolean).join(' and ');
    throw new BuildError(`The native engine needs ${missing}: install g++ >= 11 or clang++ >= 14 with make, for example ` +
      '`apt-get install g++ make` or `xcode-select --install`.');
  }
  const args = ['-C', 'native', '--no-print-directory', `CXX=${cxx}`, `FLAVOUR=${flavour}`, goal];
  const isUpToDate = () => spawnSync(make, ['-q', ...args], { cwd: ROOT, stdio: 'ignore' }).status === 0;
  // A checkout that is built may be read-only: nothing is written before there is work. While another build runs, its files are half.
  if (!existsSync(LOCK) && isUpToDate()) return;
  await locked(async () => {
    if (isUpToDate()) return;
    say(`compiling the native engine (once)${goal === 'addon' && flavour === 'release' ? '' : `: ${goal}, ${flavour}`}`);
    const startedMs = performance.now();
    const result = await run(make, [`-j${jobs()}`, ...args]);
    if (result.code !== 0) throw new BuildError(`${result.log}\nThe native engine did not compile; the log is above.`);
    say(`compiled in ${((performance.now() - startedMs) / 1000).toFixed(1)} s`);
  });
}

/** Bundles cli/main.ts into dist/cli.mjs, and the threads that it starts beside it, with the packages left outside. Does nothing if it is newer than its sources. */
export async function bundle() {
  const entry = path.join(ROOT, 'cli', 'main.ts');
  if (!existsSync(entry)) return;
  const made = statSync(path.join(ROOT, 'dist', 'cli.mjs'), { throwIfNoEntry: false })?.mtimeMs ?? 0;
  if (!existsSync(LOCK) && made > Math.max(newest('cli'), newest('functions'), newest('engine'))) return;
  const { build } = await import('esbuild');
  await locked(async () => {
    const before = chunks();
    const { metafile } = await build({ ...BUNDLE, entryPoints: { cli: entry, 'prompt-thread': path.join(ROOT, 'engine', 'adapters', 'prompt-thread.ts') }, outdir: path.join(ROOT, 'dist') }).catch((error) => {
      throw new BuildError(`The bundle did not build: ${error.message}`);
    });
    const made = new Set(Object.keys(metafile.outputs).map((file) => path.basename(file)));
    for (const file of before) if (!made.has(file)) rmSync(path.join(ROOT, 'dist', file), { force: true });
  });
}

/** Pieces of some build of the bundle: their names end in a hash. */
function chunks() {
  const dist = path.join(ROOT, 'dist');
  return existsSync(dist) ? readdirSync(dist).filter((file) => /-[A-Z0-9]{8}\.mjs(\.map)?$/.test(file)) : [];
}

/**
 * Options of the bundle. In pieces, because in one file esbuild would lift the imports of what is loaded on demand (the S3 adapter and
 * with it the AWS SDK) to the top, and every command would pay for them.
 */
export const BUNDLE = {
  bundle: true,
  splitting: true,
  platform: 'node',
  format: 'esm',
  target: 'node20',
  packages: 'external',
  sourcemap: true,
  outExtension: { '.js': '.mjs' },
  metafile: true,
  absWorkingDir: ROOT,
  logLevel: 'error',
};

/** Time of the newest file or folder below `folder`: a file that goes changes its folder. */
function newest(folder) {
  const own = statSync(path.join(ROOT, folder)).mtimeMs;
  return readdirSync(path.join(ROOT, folder), { withFileTypes: true }).reduce((time, entry) => {
    const name = path.join(folder, entry.name);
    return Math.max(time, entry.isDirectory() ? newest(name) : statSync(path.join(ROOT, name)).mtimeMs);
  }, own);
}

// npm writes node_modules/.package-lock.json at the end of every install, so its time says what the tree was installed from. A
// checkout can touch package-lock.json without changing it: then the versions decide, and nothing is downloaded.
function depsMatch() {
  const installed = path.join(ROOT, 'node_modules', '.package-lock.json');
  const wanted = path.join(ROOT, 'package-lock.json');
  if (!existsSync(installed)) return false;
  if (statSync(installed).mtimeMs >= statSync(wanted).mtimeMs) return true;
  const have = JSON.parse(readFileSync(installed, 'utf8')).packages;
  const want = JSON.parse(readFileSync(wanted, 'utf8')).packages;
  return Object.entries(want).every(([name, entry]) =>
    name === '' || have[name]?.version === entry.version || (have[name] === undefined && entry.optional === true));
}

function findTool(candidates) {
  return candidates.find((tool) => spawnSync(tool, ['--version'], { stdio: 'ignore' }).status === 0) ?? null;
}

// Not more than the cores of this container, and not so many that a small machine runs out of memory.
function jobs() {
  const wanted = Number(process.env.RUMINATE_BUILD_JOBS ?? '');
  if (Number.isInteger(wanted) && wanted > 0) return wanted;
  const out = spawnSync('nproc', { encoding: 'utf8' });
  const cores = out.status === 0 ? Number(out.stdout.trim()) : 2;
  return Math.min(Math.max(cores, 1), 8);
}

function run(command, args) {
  return new Promise((resolve) => {
    const chunks = [];
    const child = spawn(command, args, { cwd: ROOT, stdio: ['ignore', 'pipe', 'pipe'] });
    child.stdout.on('data', (chunk) => chunks.push(chunk));
    child.stderr.on('data', (chunk) => chunks.push(chunk));
    child.on('error', (error) => resolve({ code: 1, log: error.message }));
    child.on('close', (code) => resolve({ code, log: Buffer.concat(chunks).toString() }));
  });
}

function say(line) {
  process.stderr.write(`ruminate: ${line}\n`);
}

/** Runs `work` while this process holds build/.lock; a lock whose owner is dead is taken over. */
async function locked(work) {
  mkdirSync(path.dirname(LOCK), { recursive: true });
  const startedMs = Date.now();
  let told = false;
  while (!tryLock()) {
    const waitedMs = Date.now() - startedMs;
    if (waitedMs > LOCK_WAIT_MS_MAX) throw new BuildError(`Another build holds ${LOCK} for too long; remove it if none is running.`);
    if (!told && waitedMs > 1_000) {
      say('waiting for another build');
      told = true;
    }
    await sleep(100);
  }
  const release = () => rmSync(LOCK, { recursive: true, force: true });
  process.once('exit', release);
  try {
    return await work();
  } finally {
    process.off('exit', release);
    release();
  }
}

function tryLock() {
  try {
    mkdirSync(LOCK);
    writeFileSync(path.join(LOCK, 'pid'), String(process.pid));
    return true;
  } catch (error) {
    if (error.code !== 'EEXIST') throw error;
  }
  if (lockIsStale()) rmSync(LOCK, { recursive: true, force: true });
  return false;
}

function lockIsStale() {
  try {
    const pid = Number(readFileSync(path.join(LOCK, 'pid'), 'utf8'));
    process.kill(pid, 0);
    return false;
  } catch (error) {
    if (error.code === 'ESRCH') return true;
    if (error.code === 'EPERM') return false;
    // No pid yet: the owner is between mkdir and write, or died there.
    try {
      return Date.now() - statSync(LOCK).mtimeMs > 5_000;
    } catch {
      return false;
    }
  }
}

/**
 * What a script of ours begins with: `build` makes what a fresh clone lacks, then `main` of the module at `url`, in TypeScript, says how the process ends. It
 * reads the sources themselves, so that what it shows is what is in the checkout.
 */
export async function runBuilt(build, url) {
  try {
    await build();
  } catch (error) {
    process.stderr.write(error instanceof BuildError ? `ruminate: ${error.message}\n` : `${error.stack}\n`);
    process.exit(1);
  }
  const { register } = await import('tsx/esm/api');
  register();
  const { main: run } = await import(url);
  process.exitCode = await run(process.argv.slice(2));
}

async function main(goals) {
  const steps = { deps: ensureDeps, native: buildNative, bundle };
  const wanted = goals.length === 0 ? Object.keys(steps) : goals;
  for (const goal of wanted) {
    if (!Object.hasOwn(steps, goal)) throw new BuildError(`Unknown goal "${goal}"; choose from deps, native and bundle.`);
  }
  for (const goal of wanted) await steps[goal]();
}

if (process.argv[1] !== undefined && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  main(process.argv.slice(2)).catch((error) => {
    process.stderr.write(error instanceof BuildError ? `ruminate: ${error.message}\n` : `${error.stack}\n`);
    process.exitCode = 1;
  });
}
