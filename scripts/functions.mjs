#!/usr/bin/env node
/**
 * `npm run build:functions`: each function of functions/entries as one file that imports nothing, for Node, Lambda and workerd alike.
 *   dist/functions/<name>/front.mjs   `export default { fetch }`: a Worker as it is
 *   dist/functions/<name>/index.mjs   beside it, `handler` for Lambda (streaming)
 * and those that nobody asks, which Lambda runs: dist/functions/<name>/index.mjs alone.
 * Prints their sizes as a table and, last, as one line of JSON.
 */
import { readFileSync, readdirSync, realpathSync } from 'node:fs';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';

import { build } from 'esbuild';

const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const ENTRIES = path.join(ROOT, 'functions', 'entries');
const OUT = path.join(ROOT, 'dist', 'functions');
export const BYTES_MAX = 1_000_000;

export const FUNCTIONS = readdirSync(ENTRIES).filter((file) => file.endsWith('.ts')).map((file) => path.basename(file, '.ts')).sort();

/** On a schedule: of Node, whose own modules they may import. */
export const SCHEDULED = ['collector', 'reconciler'];

/**
 * Parts of libraries that a function would carry for nothing, or that are for pages: of zod its sentences in 50 languages (it speaks English by
 * itself) and its ways from and to what we have not (JSON schemas, compiled parsers), 310 kB in all; of the SDK the XML parser over a DOM, in
 * whose place comes the one it has for Node, which is plain JavaScript.
 */
const none = (...names) => `export const ${names.map((name) => `${name} = undefined`).join(', ')};`;
const NEVER_CALLED = {
  'locales/index.js': '',
  'core/compile.js': none('INVALID', 'compile', 'compileFn', 'withParser', 'ZodCompileAsyncError', 'ZodCompileUnsupportedError'),
  // Asked for beside what every schema says of itself to other libraries.
  'core/to-json-schema.js': `${none('createToJSONSchemaMethod', 'extractDefs', 'finalize', 'handleUnrepresentable', 'initializeContext', 'process', 'processSchema')}
    export const createStandardJSONSchemaMethod = () => undefined;`,
  'classic/from-json-schema.js': none('fromJSONSchema'),
};
const REPLACED = {
  name: 'replaced',
  setup(esbuild) {
    esbuild.onLoad({ filter: /[\\/]zod[\\/]v4[\\/](locales[\\/]index|core[\\/](compile|to-json-schema)|classic[\\/]from-json-schema)\.js$/ }, ({ path: file }) => {
      return { contents: NEVER_CALLED[file.split(/[\\/]/).slice(-2).join('/')] };
    });
    // Schemas are told by zod-to-openapi: of zod's own way only what says the bounds of a schema is ever called.
    esbuild.onLoad({ filter: /[\\/]zod[\\/]v4[\\/]core[\\/]json-schema-processors\.js$/ }, ({ path: file }) => {
      const [used, unused] = readFileSync(file, 'utf8').split(/^(?=export const stringProcessor )/m);
      const names = [...unused.matchAll(/^export (?:const|function) (\w+)/gm)].map(([, name]) => name);
      return { contents: used + none(...names), resolveDir: path.dirname(file) };
    });
    // `z` is an object of all that zod has, which keeps all of it: these parts nobody here asks of it.
    esbuild.onLoad({ filter: /[\\/]zod[\\/]v4[\\/]classic[\\/]external\.js$/ }, ({ path: file }) => {
      const lines = readFileSync(file, 'utf8').split('\n').filter((line) => !/^export (\* as (core|locales|iso)|\{ (toJSONSchema|fromJSONSchema|deepPartial) \})/.test(line));
      const asked = lines.map((line) => line.replaceAll(/ (regexes|treeifyError|prettifyError|formatError|flattenError|util|toZod|memoizer),/g, ''));
      return { contents: asked.join('\n'), resolveDir: path.dirname(file) };
    });
    // Of hundreds of shapes a dozen are used; esbuild cannot see that making the others has no effect, for their keys are computed. An error that is
    // not registered is its client's general one, under its own name: all that the adapters look at.
    esbuild.onLoad({ filter: /@aws-sdk[\\/]client-[a-z0-9]+[\\/]dist-es[\\/]schemas[\\/]schemas_0\.js$/ }, ({ path: file }) => {
      return { contents: readFileSync(file, 'utf8').replace(/^((?:export )?var \w+\$?) = (\[[^]*?\]);$/gm, '$1 = /* @__PURE__ */ (() => $2)();').replace(/^n0_registry\.registerError\(.*\);$/gm, ''), resolveDir: path.dirname(file) };
    });
    // What S3 Select answers with, which nobody asks.
    esbuild.onLoad({ filter: /@smithy[\\/]core[\\/]dist-es[\\/]submodules[\\/]event-streams[\\/]index(\.browser)?\.js$/ }, () => {
      return { contents: `${none('EventStreamSerde')} export const eventStreamSerdeProvider = () => undefined; export const resolveEventStreamSerdeConfig = (config) => config;` };
    });
    esbuild.onLoad({ filter: /xml-builder[\\/]dist-es[\\/]xml-parser\.browser\.js$/ }, async ({ path: file }) => {
      const instead = file.replace('.browser.js', '.js');
      return { contents: readFileSync(instead, 'utf8'), resolveDir: path.dirname(instead) };
    });
  },
};

/** @returns for each function its files as text, `front` null where nobody asks it, and what went into the first. */
export async function bundleFunctions(names = [...FUNCTIONS, ...SCHEDULED]) {
  const { version } = JSON.parse(readFileSync(path.join(ROOT, 'package.json'), 'utf8'));
  const common = { bundle: true, minify: true, format: 'esm', target: 'es2022', write: false, metafile: true, logLevel: 'silent', legalComments: 'none', absWorkingDir: ROOT };
  const lambda = await build({
    ...common,
    platform: 'node',
    entryPoints: ['functions/lambda.ts'],
    plugins: [{ name: 'beside', setup: (esbuild) => esbuild.onResolve({ filter: /entries\/api\.ts$/ }, () => ({ path: './front.mjs', external: true })) }],
  });
  return await Promise.all(names.map(async (name) => {
    const scheduled = SCHEDULED.includes(name);
    const entry = scheduled ? `functions/${name}.ts` : `functions/entries/${name}.ts`;
    // For a browser: esbuild takes each library's parts for the web, and refuses every import that only Node has.
    const { outputFiles: [file], metafile } = await build({ ...common, platform: 'browser', entryPoints: [entry], external: scheduled ? ['node:*'] : [], define: { VERSION: JSON.stringify(version) }, plugins: [REPLACED] });
    const texts = scheduled ? { front: null, index: file.text } : { front: file.text, index: lambda.outputFiles[0].text };
    return { name, ...texts, bytes: file.contents.byteLength, gzipBytes: gzipSync(file.contents, { level: 9 }).byteLength, metafile };
  }));
}

/** Writes them all, and the sizes to standard output. */
export async function buildFunctions() {
  const built = await bundleFunctions();
  await rm(OUT, { recursive: true, force: true });
  for (const { name, front, index } of built) {
    await mkdir(path.join(OUT, name), { recursive: true });
    if (front !== null) await writeFile(path.join(OUT, name, 'front.mjs'), front);
    await writeFile(path.join(OUT, name, 'index.mjs'), index);
  }
  const kilobytes = (bytes) => `${Math.round(bytes / 1_000)} kB`.padStart(9);
  process.stdout.write(`${'function'.padEnd(12)}${'minified'.padStart(9)}${'gzip'.padStart(9)}\n`);
  for (const { name, bytes, gzipBytes } of built) process.stdout.write(`${name.padEnd(12)}${kilobytes(bytes)}${kilobytes(gzipBytes)}\n`);
  process.stdout.write(`${JSON.stringify({ functions: Object.fromEntries(built.map(({ name, bytes, gzipBytes }) => [name, { bytes, gzip_bytes: gzipBytes }])) })}\n`);
  const large = built.filter(({ bytes }) => bytes >= BYTES_MAX).map(({ name }) => name);
  if (large.length > 0) throw new Error(`${large.join(', ')}: ${BYTES_MAX} bytes or more`);
}

if (process.argv[1] !== undefined && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  try {
    await buildFunctions();
  } catch (error) {
    process.stderr.write(`ruminate: ${error.message}\n`);
    process.exitCode = 1;
  }
}
