#!/usr/bin/env node
/**
 * Coverage-guided fuzzing of the parsers that are TypeScript: `node scripts/fuzz.mjs tokenizer|template|gguf-tokenizer|calls [seconds|merge]`.
 * test/fuzz/*_fuzz.ts are the targets, test/fuzz/loop.ts is the fuzzer; inputs beyond the committed ones stay in build/fuzz/js/, and
 * `merge` brings the useful ones of both back to test/fuzz/corpus/. RUMINATE_FUZZ_SEED=7 does a run again. Exits with 0 if nothing was found.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, mkdirSync, readFileSync, readdirSync, realpathSync, statSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { ROOT } from './build.mjs';

const SOURCES = path.join(ROOT, 'test', 'fuzz');
const OUT = path.join(ROOT, 'build', 'fuzz', 'js');
const SECONDS_DEFAULT = 40;
/** What an input of 16 kB may take at most: the engine's own bounds are shortened to 2 s, and several apply to one input. */
const HANG_MS = 20_000;
const HEAP_MB = 1_024;
const RSS_MB = 2_048;
const LOOK_MS = 500;

export function fuzzTargets() {
  return readdirSync(SOURCES).filter((file) => file.endsWith('_fuzz.ts')).map((file) => file.slice(0, -'_fuzz.ts'.length)).sort();
}

/** Fuzzes one target. Resolves to its output, and whether nothing was found. */
export async function fuzzTarget(target, seconds, { merge = false, seed = seedOf(), show = () => {}, sources = SOURCES } = {}) {
  const found = path.join(OUT, target);
  mkdirSync(found, { recursive: true });
  const bundles = { loop: path.join(OUT, 'loop.cjs'), target: path.join(OUT, `${target}.cjs`) };
  await bundle(path.join(SOURCES, 'loop.ts'), bundles.loop);
  await bundle(path.join(sources, `${target}_fuzz.ts`), bundles.target);
  const current = path.join(OUT, `${target}.current`);
  const options = {
    bundle: bundles.target, corpus: path.join(sources, 'corpus', target), found, dictionary: path.join(sources, `${target}.dict`), current, seconds, seed, merge,
  };
  const { code, output, why } = await watched([`--max-old-space-size=${HEAP_MB}`, bundles.loop, JSON.stringify(options)], current, show);
  if (code === 0) return { clean: true, output };
  const artifact = path.join(OUT, `${target}-${createHash('sha1').update(readFileSync(current)).digest('hex')}`);
  copyFileSync(current, artifact);
  return { clean: false, output: `${output}${why}: the input is ${path.relative(ROOT, artifact)}, the seed was ${seed}\n` };
}

/** The loop's process, ended when it stands still or grows: neither can be told from inside. */
function watched(args, current, show) {
  return new Promise((resolve) => {
    const chunks = [];
    let why = 'found';
    const child = spawn(process.execPath, args, { cwd: ROOT, stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (chunk) => {
        chunks.push(chunk);
        show(chunk);
      });
    }
    const end = (reason) => {
      why = reason;
      child.kill('SIGKILL');
    };
    const startMs = Date.now();
    const looking = setInterval(() => {
      const triedMs = statSync(current, { throwIfNoEntry: false })?.mtimeMs ?? 0;
      if (Date.now() - Math.max(triedMs, startMs) > HANG_MS) end(`no end after ${HANG_MS / 1_000} s`);
      else if (residentMb(child.pid) > RSS_MB) end(`more than ${RSS_MB} MB`);
    }, LOOK_MS);
    child.on('close', (code) => {
      clearInterval(looking);
      resolve({ code: code ?? 1, output: Buffer.concat(chunks).toString(), why });
    });
  });
}

/** Where there is /proc; elsewhere only the heap is bounded. */
function residentMb(pid) {
  try {
    const kb = readFileSync(`/proc/${pid}/status`, 'utf8').match(/^VmRSS:\s+(\d+) kB/m)?.[1];
    return Number(kb ?? 0) / 1_024;
  } catch {
    return 0;
  }
}

async function bundle(entry, outfile) {
  const { build } = await import('esbuild');
  await build({
    entryPoints: [entry], outfile, bundle: true, platform: 'node', format: 'cjs', target: 'node20', logLevel: 'error',
    // Only models by name are found from the place of the source, and no target looks for one.
    define: { 'import.meta.url': JSON.stringify('file:///') },
  });
}

function seedOf() {
  const given = Number(process.env.RUMINATE_FUZZ_SEED ?? '');
  return Number.isInteger(given) && given > 0 ? given : 1 + Math.floor(Math.random() * 2 ** 31);
}

if (process.argv[1] !== undefined && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const [target, how = String(SECONDS_DEFAULT)] = process.argv.slice(2);
  if (!fuzzTargets().includes(target) || !/^(\d+|merge)$/.test(how)) {
    process.stderr.write(`fuzz: choose a target from ${fuzzTargets().join(', ')}, and a number of seconds or merge\n`);
    process.exit(2);
  }
  const merge = how === 'merge';
  const { clean, output } = await fuzzTarget(target, merge ? 0 : Number(how), { merge, show: (chunk) => process.stdout.write(chunk) });
  if (!clean) process.stderr.write(output.slice(output.lastIndexOf('\n', output.length - 2) + 1));
  process.exitCode = clean ? 0 : 1;
}
