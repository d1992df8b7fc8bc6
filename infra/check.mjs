#!/usr/bin/env node
/**
 * `npm run infra:test`: everything about infra that needs no account. Installs what is missing (infra's own packages, cfn-lint and checkov at fixed
 * versions under build/), builds the bundles, runs the tests, both linters over every stage, and infra/checks/*.mjs. Ends with `N passed, N failed`.
 * Plain JavaScript with node: built-ins only, because it runs before there are dependencies.
 */
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { takeLock } from './checks/lib/lock.mjs';

const INFRA = path.dirname(fileURLToPath(import.meta.url));
const ROOT = path.dirname(INFRA);
const BUILD = path.join(ROOT, 'build', 'infra');
const STAGES = path.join(BUILD, 'stages');
/** Python's, in one environment: two linters, and servers of AWS's APIs for tests. */
const TOOLS = ['cfn-lint==1.58.0', 'checkov==3.3.30', 'moto[server]==5.2.5'];
/** Of one command: far above what it takes. */
const COMMAND_MINUTES = 10;

const parts = [];
const say = (line) => process.stdout.write(`${line}\n`);

function record(name, passed, failed, detail = '') {
  parts.push({ passed, failed });
  say(`${failed === 0 ? 'ok  ' : 'FAIL'} ${name}: ${passed} passed, ${failed} failed`);
  if (failed > 0 && detail !== '') say(detail.trimEnd());
}

function run(command, args, { cwd = ROOT, show = false, env = {} } = {}) {
  return new Promise((resolve) => {
    const chunks = [];
    const child = spawn(command, args, { cwd, env: { ...process.env, ...env }, stdio: ['ignore', show ? 'inherit' : 'pipe', show ? 'inherit' : 'pipe'], timeout: COMMAND_MINUTES * 60_000 });
    for (const stream of [child.stdout, child.stderr]) stream?.on('data', (chunk) => chunks.push(chunk));
    child.on('error', (error) => resolve({ code: 1, output: error.message }));
    child.on('close', (code) => resolve({ code: code ?? 1, output: Buffer.concat(chunks).toString() }));
  });
}

/** @throws Error with what it said. */
async function must(command, args, options) {
  const { code, output } = await run(command, args, options);
  if (code !== 0) throw new Error(`${path.basename(command)} ${args.join(' ')} ended with ${code}\n${output}`);
}

async function prepare() {
  const lock = path.join(INFRA, 'package-lock.json');
  const stamp = path.join(INFRA, 'node_modules', '.ruminate-lock');
  const wanted = readFileSync(lock, 'utf8');
  if (!existsSync(stamp) || readFileSync(stamp, 'utf8') !== wanted) {
    say('installing the packages of infra');
    await must('npm', ['ci', '--no-audit', '--no-fund', '--ignore-scripts', '--loglevel=error'], { cwd: INFRA });
    writeFileSync(stamp, wanted);
  }
  await must(process.execPath, [path.join(ROOT, 'scripts', 'functions.mjs')]);
}

/** The folder of the linters' programs. */
async function tools() {
  const home = path.join(BUILD, 'venv');
  const stamp = path.join(home, '.tools');
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === TOOLS.join('\n')) return path.join(home, 'bin');
  say(`installing ${TOOLS.join(', ')}`);
  rmSync(home, { recursive: true, force: true });
  mkdirSync(BUILD, { recursive: true });
  await must('python3', ['-m', 'venv', home]);
  await must(path.join(home, 'bin', 'pip'), ['install', '--quiet', '--disable-pip-version-check', ...TOOLS]);
  writeFileSync(stamp, TOOLS.join('\n'));
  return path.join(home, 'bin');
}

async function vitest() {
  const file = path.join(BUILD, 'vitest.json');
  rmSync(file, { force: true });
  // Snapshots that differ are failures, not new ones.
  const { code } = await run(process.execPath, [path.join(INFRA, 'node_modules', 'vitest', 'vitest.mjs'), 'run', '--reporter=default', '--reporter=json', `--outputFile.json=${file}`], { cwd: INFRA, show: true, env: { CI: '1', RUMINATE_INFRA_STAGES: STAGES } });
  if (!existsSync(file)) return record('vitest', 0, 1, 'it ended without a report: a stage could not be synthesised');
  const { numPassedTests, numFailedTests } = JSON.parse(readFileSync(file, 'utf8'));
  record('vitest', numPassedTests, numFailedTests > 0 ? numFailedTests : code === 0 ? 0 : 1);
}

async function types() {
  const { code, output } = await run(process.execPath, [path.join(INFRA, 'node_modules', 'typescript', 'bin', 'tsc'), '--noEmit', '-p', INFRA]);
  record('types', code === 0 ? 1 : 0, code === 0 ? 0 : 1, output);
}

/** Each stage is one test of each linter, and each linter starts once. */
async function lint(bin) {
  const names = existsSync(STAGES) ? readdirSync(STAGES).sort() : [];
  const templates = names.flatMap((stage) => readdirSync(path.join(STAGES, stage)).filter((file) => file.endsWith('.template.json')).map((file) => path.join(STAGES, stage, file)));
  const stageOf = (file) => path.basename(path.dirname(file));
  const [cfn, checkov] = await Promise.all([
    run(path.join(bin, 'cfn-lint'), ['--config-file', path.join(INFRA, '.cfnlintrc.yaml'), '--format', 'json', '--', ...templates]).then(({ output }) => JSON.parse(output || '[]')),
    run(path.join(bin, 'checkov'), ['--framework', 'cloudformation', '--skip-download', '--compact', '--output', 'json', ...templates.flatMap((file) => ['-f', file])], { env: { LOG_LEVEL: 'ERROR' } }).then(({ output }) => JSON.parse(output.slice(output.indexOf('{'))).results),
  ]);
  for (const name of names) {
    const of = (checks) => checks.filter(({ repo_file_path, file_abs_path }) => stageOf(file_abs_path ?? repo_file_path) === name);
    const wrong = cfn.filter(({ Filename }) => stageOf(Filename) === name).map(({ Filename, Location, Rule, Message }) => `${path.basename(Filename)}:${Location.Start.LineNumber} ${Rule.Id} ${Message}`);
    record(`cfn-lint ${name}`, wrong.length === 0 ? 1 : 0, wrong.length === 0 ? 0 : 1, wrong.join('\n'));
    const [passed, failed, accepted] = [of(checkov.passed_checks).length, of(checkov.failed_checks), of(checkov.skipped_checks).length];
    // No check at all would be no opinion.
    const isClean = failed.length === 0 && passed > 100;
    record(`checkov ${name}: ${passed} checks, ${accepted} accepted`, isClean ? 1 : 0, isClean ? 0 : 1, failed.map(({ check_id, check_name, resource }) => `${check_id} ${resource}: ${check_name}`).join('\n'));
  }
}

/** Scripts that say the same last line: of images, charts and prices. */
async function others() {
  const folder = path.join(INFRA, 'checks');
  for (const name of existsSync(folder) ? readdirSync(folder).filter((file) => file.endsWith('.mjs')).sort() : []) {
    const { code, output } = await run(process.execPath, [path.join(folder, name)]);
    const [, passed = '0', failed = '0'] = output.match(/^(\d+) passed, (\d+) failed$/m) ?? [];
    const isWrong = code !== 0 || Number(failed) > 0 || Number(passed) === 0;
    record(`checks/${name}`, Number(passed), isWrong ? Math.max(1, Number(failed)) : 0, output);
  }
}

const startedMs = performance.now();
try {
  takeLock(path.join(BUILD, '.lock'));
  await prepare();
  const [bin] = await Promise.all([tools(), types()]);
  await vitest();
  await lint(bin);
  await others();
} catch (error) {
  record('infra', 0, 1, error.message);
}
const sum = (key) => parts.reduce((n, part) => n + part[key], 0);
say(`${Math.round((performance.now() - startedMs) / 1_000)} s`);
say(`${sum('passed')} passed, ${sum('failed')} failed`);
process.exitCode = sum('failed') === 0 ? 0 : 1;
