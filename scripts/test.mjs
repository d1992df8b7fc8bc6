#!/usr/bin/env node
/**
 * `node scripts/test.mjs fast|slow|soak`: builds what is missing, runs that kind of test, ends with one line `N passed, N failed`.
 * fast: everything a change must pass, minutes. slow: sanitizers, fuzzing, long tests, other Node versions. soak: the published solve rates, long searches, peers that take long to build.
 * Plain JavaScript with node: built-ins only, because it runs before there are dependencies.
 */
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import path from 'node:path';

import { buildNative, bundle, ensureDeps, ROOT } from './build.mjs';
import { fuzzTarget, fuzzTargets } from './fuzz.mjs';

const NODES = ['20', '22', '24'];
/** Native tests whose work is split over threads: what ThreadSanitizer has to see. */
const THREADED = ['batch_test', 'bits_test', 'cpu_test', 'mapped_buffer_test', 'masks_test', 'object_test', 'prepared_test', 'restore_extend_test', 'restore_test', 'run_prefix_test', 'run_test', 'sampler_bits_test'];
const FUZZ_SECONDS = 15;
/** Of one command of a kind of test, minutes: far above what it takes, so that one that hangs is a failure with a name. */
const COMMAND_MINUTES = 15;
/** Of a kind as a whole: what has not begun by then counts as failed. The soak takes its time. */
const KIND_MINUTES = { fast: 20, slow: 35, soak: Number.POSITIVE_INFINITY };

const KINDS = {
  async fast() {
    await prepare();
    await nativeTests('release');
    await check('typecheck', process.execPath, [bin('typescript/bin/tsc'), '--noEmit']);
    await vitest('fast', ['test/unit', 'test/contract', 'test/kv', 'test/sim', 'test/resume', 'test/failures', 'test/failures.test.ts', 'test/checkpoint', 'test/control', 'test/worker', 'test/functions', 'test/webhook', 'test/native', 'test/engine', 'test/cli', 'test/tidy.test.ts']);
  },
  async slow() {
    await prepare();
    await nativeTests('asan');
    await addonUnderAsan();
    await nativeTests('tsan', THREADED);
    await fuzz();
    await fuzzScripts();
    await vitest('slow', ['test/slow']);
    await counted('infra', process.execPath, ['infra/check.mjs']);
    for (const version of NODES) await nodeSmoke(version);
  },
  async soak() {
    await prepare();
    await vitest('soak', ['test/soak']);
    await solveRates();
    await image();
  },
};

/** One row for each part that ran. */
const parts = [];
let endsAtMs = Number.POSITIVE_INFINITY;

async function prepare() {
  await ensureDeps();
  await buildNative();
  await bundle();
}

/** Builds and runs every native/test/*_test.cc; each prints `N passed, N failed` as its last line. */
async function nativeTests(flavour, only = null) {
  const sources = path.join(ROOT, 'native', 'test');
  const names = existsSync(sources) ? readdirSync(sources).filter((f) => f.endsWith('_test.cc')).map((f) => f.slice(0, -3)) : [];
  if (names.length === 0) return record(`native ${flavour}`, 0, 1, 'there is no native/test/*_test.cc');
  try {
    await buildNative({ goal: 'tests', flavour });
  } catch (error) {
    return record(`native ${flavour}`, 0, 1, error.message);
  }
  const waiting = names.sort().filter((name) => only === null || only.includes(name));
  const one = async () => {
    for (let name = waiting.shift(); name !== undefined; name = waiting.shift()) {
      const began = performance.now();
      const exe = path.join('build', 'native', flavour, name);
      const { code, output } = await run(path.join(ROOT, exe), ['test/fixtures', 'models'], SANITIZERS[flavour]);
      const counts = output.match(/^(\d+) passed, (\d+) failed/m);
      // A sanitizer's report ends the process without a failing test: that is a failure all the same.
      const failed = Number(counts?.[2] ?? 0);
      record(`native ${flavour}: ${name}`, Number(counts?.[1] ?? 0), code !== 0 && failed === 0 ? 1 : failed, code === 0 && counts ? '' : output, began);
    }
  };
  // One a core, up to four: none of them uses more than two threads for long.
  await Promise.all(Array.from({ length: Math.min(4, availableParallelism()) }, one));
}

/** The addon in Node, whose ends and beginnings no native test has: environments that come and go, objects that outlive them. */
async function addonUnderAsan() {
  const label = 'addon asan';
  const cxx = await firstOf([process.env.CXX ?? 'c++', 'g++']);
  // Its runtime has to be there before Node is.
  const libraries = await Promise.all(['libasan.so', 'libubsan.so'].map(async (name) => (await run(cxx, [`-print-file-name=${name}`])).output.trim()));
  if (!libraries.every((file) => path.isAbsolute(file))) return say(`skipped: ${label}: ${cxx} has no shared sanitizers to load before Node`);
  try {
    await buildNative({ goal: 'addon', flavour: 'asan' });
  } catch (error) {
    return record(label, 0, 1, error.message);
  }
  const files = ['together', 'checkpoint', 'checkpoint-calls', 'environments'].map((name) => `test/native/${name}.test.ts`);
  // Not the two that look for an addon that is not there.
  await vitest('addon asan', files, ['--testTimeout=120000', '--testNamePattern', '^(?!.*ERR_NATIVE_MISSING)'], {
    RUMINATE_ADDON: path.join(ROOT, 'build', 'native', 'asan', 'ruminate.node'), LD_PRELOAD: libraries.join(':'), ASAN_OPTIONS: 'detect_leaks=0',
  });
}

const SANITIZERS = {
  release: {},
  asan: { ASAN_OPTIONS: 'detect_leaks=1:strict_string_checks=1', UBSAN_OPTIONS: 'print_stacktrace=1' },
  tsan: { TSAN_OPTIONS: 'halt_on_error=1:second_deadlock_stack=1' },
};

/** Every native/fuzz/*_fuzz.cc for a bounded time from its committed corpus; what it finds beyond stays in build/fuzz/. */
async function fuzz() {
  const names = readdirSync(path.join(ROOT, 'native', 'fuzz')).filter((f) => f.endsWith('_fuzz.cc')).map((f) => f.slice(0, -3));
  const compiler = await firstOf(['clang++', 'clang++-14']);
  if (compiler === null) {
    say(`skipped: fuzzing of ${names.join(', ')}: there is no clang++ with libFuzzer (Debian: apt-get install clang libclang-rt-14-dev)`);
    return;
  }
  try {
    await buildNative({ goal: 'fuzz', flavour: 'fuzz', compiler });
  } catch (error) {
    return record('fuzz', 0, 1, error.message);
  }
  for (const name of names.sort()) {
    const target = name.slice(0, -'_fuzz'.length);
    const found = path.join('build', 'fuzz', target);
    mkdirSync(path.join(ROOT, found), { recursive: true });
    const limits = [`-max_total_time=${FUZZ_SECONDS}`, '-max_len=16384', '-timeout=10', '-rss_limit_mb=2048', `-artifact_prefix=${found}-`];
    await check(`fuzz ${target}, ${FUZZ_SECONDS} s`, path.join('build', 'native', 'fuzz', name), [...limits, found, path.join('native', 'fuzz', 'corpus', target)]);
  }
}

/** The first of some tools that is there; Debian has clang's with the version in their names. */
async function firstOf(tools) {
  for (const tool of tools) if ((await run(tool, ['--version'])).code === 0) return tool;
  return null;
}

/** Every test/fuzz/*_fuzz.ts for as long: the parsers that are TypeScript. */
async function fuzzScripts() {
  for (const target of fuzzTargets()) {
    const { clean, output } = await fuzzTarget(target, FUZZ_SECONDS);
    record(`fuzz ${target}, ${FUZZ_SECONDS} s`, clean ? 1 : 0, clean ? 0 : 1, output);
    if (clean) say(output.trimEnd().split('\n').at(-1));
  }
}

async function vitest(label, targets, options = [], env = {}) {
  const wanted = targets.filter((target) => existsSync(path.join(ROOT, target)));
  if (wanted.length === 0) return record(`vitest ${label}`, 0, 1, `none of ${targets.join(', ')} exists`);
  const file = path.join(ROOT, 'build', 'test', `vitest-${label.replaceAll(' ', '-')}.json`);
  mkdirSync(path.dirname(file), { recursive: true });
  rmSync(file, { force: true });
  const args = [bin('vitest/vitest.mjs'), 'run', '--reporter=default', '--reporter=json', `--outputFile.json=${file}`, ...options, ...wanted];
  const { code, output } = await run(process.execPath, args, env, { show: true });
  if (!existsSync(file)) return record(`vitest ${label}`, 0, 1, `vitest ended without a report\n${output}`);
  const report = JSON.parse(readFileSync(file, 'utf8'));
  // A file that does not load has no failing test, only a failed exit.
  const failed = report.numFailedTests > 0 ? report.numFailedTests : code === 0 ? 0 : 1;
  record(`vitest ${label}`, report.numPassedTests, failed, report.numTotalTests === 0 ? 'no test ran' : '');
  for (const test of report.testResults.flatMap((suite) => suite.assertionResults)) {
    if (options.length === 0 && (test.status === 'pending' || test.status === 'skipped')) say(`skipped: ${test.fullName}`);
  }
}

/** One real job under another Node version, from the registry package that ships it, kept in build/nodes/. */
async function nodeSmoke(version) {
  const label = `node ${version} smoke`;
  let exe = process.execPath;
  if (process.versions.node.split('.')[0] !== version) {
    const home = path.join(ROOT, 'build', 'nodes', version);
    const name = `node-${process.platform === 'win32' ? 'win' : process.platform}-${process.arch}`;
    exe = path.join(home, 'node_modules', name, 'bin', 'node');
    if (!existsSync(exe)) {
      mkdirSync(home, { recursive: true });
      const args = ['i', '--prefix', home, '--no-audit', '--no-fund', '--no-save', '--loglevel=error', `${name}@${version}`];
      const { code, output } = await run('npm', args);
      if (code !== 0) return record(label, 0, 1, output);
    }
  }
  const here = await smokeResult(process.execPath);
  const there = await smokeResult(exe);
  const same = there.result !== null && there.result === here.result;
  record(label, same ? 1 : 0, same ? 0 : 1, there.result === null ? there.output : `not what Node ${process.versions.node} gives:\n${here.output}${there.output}`);
}

/** A job's JSON without its timing: the rest is a function of the spec, so of no Node either. null: it failed. */
async function smokeResult(exe) {
  const args = ['bin/ruminate.mjs', 'run', '4 20 8 13 target 59', '--length', '32', '--width', '2', '--seed', '1', '--json'];
  const { code, output } = await run(exe, args);
  try {
    const { timing, ...result } = JSON.parse(output);
    const whole = code === 0 && timing !== undefined && result.chains.length === 2 && result.chains.every((chain) => chain.tokens.length > 0);
    return { result: whole ? JSON.stringify(result) : null, output };
  } catch {
    return { result: null, output };
  }
}

/** Every (CR, L, W) of the model card is one test: docs/soak.json. */
async function solveRates() {
  const report = path.join(ROOT, 'docs', 'soak.json');
  rmSync(report, { force: true });
  await run(process.execPath, ['--import', 'tsx', 'scripts/demo/soak.ts'], {}, { show: true });
  if (!existsSync(report)) return record('solve rates', 0, 1, 'the soak run ended without a report');
  const { passed, failed } = JSON.parse(readFileSync(report, 'utf8'));
  record('solve rates', passed, failed, 'see docs/soak.md');
}

/** The image, built and run without Docker. */
async function image() {
  const missing = [];
  for (const tool of ['buildah', 'debootstrap']) if ((await firstOf([tool])) === null) missing.push(tool);
  if (missing.length > 0 || process.getuid?.() !== 0) return say(`skipped: the image: it needs root, and ${missing.join(' and ') || 'nothing else'} (Debian: apt-get install buildah debootstrap podman runc)`);
  await counted('image', process.execPath, ['infra/image/build.mjs']);
}

/** A command that is one test. */
async function check(label, command, args) {
  const { code, output } = await run(command, args);
  record(label, code === 0 ? 1 : 0, code === 0 ? 0 : 1, code === 0 ? '' : output);
}

/** A command that counts by itself: `N passed, N failed` alone on its last such line. */
async function counted(label, command, args) {
  const { code, output } = await run(command, args);
  const counts = [...output.matchAll(/^(\d+) passed, (\d+) failed$/gm)].at(-1);
  const failed = Number(counts?.[2] ?? 0);
  record(label, Number(counts?.[1] ?? 0), code !== 0 && failed === 0 ? 1 : failed, code === 0 && counts ? '' : output);
}

let recordedAtMs = performance.now();

/** `beganAtMs`: when the part began, if others ran beside it. */
function record(name, passed, failed, detail = '', beganAtMs = recordedAtMs) {
  parts.push({ name, passed, failed });
  recordedAtMs = performance.now();
  say(`${failed === 0 ? 'ok  ' : 'FAIL'} ${name}: ${passed} passed, ${failed} failed (${((recordedAtMs - beganAtMs) / 1_000).toFixed(0)} s)`);
  if (failed > 0 && detail !== '') say(detail.trimEnd());
}

function run(command, args, env = {}, { show = false } = {}) {
  const leftMs = endsAtMs - performance.now();
  if (leftMs <= 0) return Promise.resolve({ code: 1, output: `not run: the time for this kind of test is over` });
  const limitMs = kind === 'soak' ? null : Math.min(COMMAND_MINUTES * 60_000, leftMs);
  return new Promise((resolve) => {
    const chunks = [];
    // In a group of its own, so that what it started ends with it.
    const child = spawn(command, args, { cwd: ROOT, env: { ...process.env, ...env }, detached: limitMs !== null, stdio: ['ignore', show ? 'inherit' : 'pipe', show ? 'inherit' : 'pipe'] });
    const stop = () => {
      try {
        process.kill(-child.pid, 'SIGKILL');
      } catch {
        child.kill('SIGKILL');
      }
    };
    if (limitMs !== null) {
      running.add(stop);
      child.on('close', () => running.delete(stop));
    }
    const timer = limitMs === null ? null : setTimeout(() => {
      chunks.push(Buffer.from(`\nended after ${Math.round(limitMs / 1_000)} s, its limit: ${path.basename(command)} ${args.join(' ')}\n`));
      stop();
    }, limitMs);
    child.stdout?.on('data', (chunk) => chunks.push(chunk));
    child.stderr?.on('data', (chunk) => chunks.push(chunk));
    child.on('error', (error) => resolve({ code: 1, output: error.message }));
    child.on('close', (code) => {
      clearTimeout(timer);
      resolve({ code: code ?? 1, output: Buffer.concat(chunks).toString() });
    });
  });
}

function bin(file) {
  return path.join(ROOT, 'node_modules', file);
}

function say(line) {
  process.stdout.write(`${line}\n`);
}

const kind = process.argv[2] ?? 'fast';
/** How to stop what runs: a group of its own does not get the terminal's Ctrl-C. */
const running = new Set();
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, () => {
    for (const stop of running) stop();
    process.exit(signal === 'SIGINT' ? 130 : 143);
  });
}
if (!Object.hasOwn(KINDS, kind)) {
  process.stderr.write(`test: unknown kind "${kind}"; choose from ${Object.keys(KINDS).join(', ')}\n`);
  process.exit(2);
}
endsAtMs = performance.now() + KIND_MINUTES[kind] * 60_000;
try {
  await KINDS[kind]();
} catch (error) {
  record('build', 0, 1, error.message);
}
const sum = (key) => parts.reduce((n, part) => n + part[key], 0);
say(`${sum('passed')} passed, ${sum('failed')} failed`);
process.exitCode = sum('failed') === 0 ? 0 : 1;
