#!/usr/bin/env node
/**
 * Lays out the product as it runs in an image or under /opt: `node infra/image/app.mjs OUT [MODEL…]`, in a checkout whose native engine is built.
 *   OUT/bin/ruminate.mjs, dist/          the command, with every package it uses inside
 *   OUT/build/native/ruminate.node       the engine
 *   OUT/engine/runtime, node_modules     the thread of grammars and its WebAssembly, which a bundle cannot hold
 *   OUT/models                           the models that were named
 *   OUT/health.mjs                       what the image's health check runs
 *   OUT/LICENSES                         of all that is inside
 * Three megabytes of JavaScript for the hundred and twenty of its packages.
 */
import { cpSync, existsSync, mkdirSync, readFileSync, readdirSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';

import { BUNDLE, ROOT } from '../../scripts/build.mjs';

const AS_IT_IS = ['bin/ruminate.mjs', 'build/native/ruminate.node', 'engine/runtime/grammar-thread.mjs', 'node_modules/@mlc-ai/web-xgrammar', 'LICENSE'];
/** Packages of CommonJS ask for Node's own modules by `require`, which a module has to make for itself. */
const REQUIRE = "import { createRequire as createRequireOfNode } from 'node:module'; const require = createRequireOfNode(import.meta.url);";

/** @returns bytes of the bundle, and the packages inside. @throws Error: something is not built, or a package would be missing at run time. */
export async function layOut(out, models = []) {
  for (const file of AS_IT_IS) if (!existsSync(path.join(ROOT, file))) throw new Error(`${file} is missing: run \`node scripts/build.mjs deps native\` first`);
  for (const model of models) if (!existsSync(path.join(ROOT, 'models', model, 'model.json'))) throw new Error(`models/${model} is no model: ${readdirSync(path.join(ROOT, 'models')).join(', ')}`);
  for (const part of ['bin', 'dist', 'build', 'engine', 'node_modules', 'models', 'LICENSES']) rmSync(path.join(out, part), { recursive: true, force: true });
  mkdirSync(path.join(out, 'models'), { recursive: true });
  const { metafile } = await build({
    ...BUNDLE,
    packages: 'bundle',
    sourcemap: false,
    minifySyntax: true,
    target: 'node20',
    banner: { js: REQUIRE },
    entryPoints: { cli: path.join(ROOT, 'cli', 'main.ts'), 'prompt-thread': path.join(ROOT, 'engine', 'adapters', 'prompt-thread.ts') },
    outdir: path.join(out, 'dist'),
  });
  for (const file of AS_IT_IS) cpSync(path.join(ROOT, file), path.join(out, file), { recursive: true });
  cpSync(path.join(ROOT, 'infra', 'image', 'health.mjs'), path.join(out, 'health.mjs'));
  for (const model of models) cpSync(path.join(ROOT, 'models', model), path.join(out, 'models', model), { recursive: true });
  const { name, version, license } = readJson(path.join(ROOT, 'package.json'));
  writeFileSync(path.join(out, 'package.json'), `${JSON.stringify({ name, version, license, type: 'module', bin: { ruminate: 'bin/ruminate.mjs' } }, null, 2)}\n`);
  const packages = packagesOf([...Object.keys(metafile.inputs), 'node_modules/@mlc-ai/web-xgrammar/package.json', 'node_modules/@nozbe/simdjson/package.json']);
  mkdirSync(path.join(out, 'LICENSES'));
  for (const folder of packages) writeLicence(out, folder);
  for (const name of readdirSync(path.join(ROOT, 'native', 'third_party'), { withFileTypes: true }).filter((entry) => entry.isDirectory()).map((entry) => entry.name)) {
    writeLicence(out, path.join('native', 'third_party', name));
  }
  return { bytes: Object.values(metafile.outputs).reduce((sum, { bytes }) => sum + bytes, 0), packages };
}

/** Folders of the packages that files are of: the innermost one, `node_modules/a/node_modules/@b/c`. */
function packagesOf(files) {
  const folders = files.map((file) => /^(?:.*\/)?node_modules\/(?:@[^/]+\/)?[^/]+/.exec(file)?.[0]).filter((folder) => folder !== undefined);
  return [...new Set(folders)].sort();
}

function writeLicence(out, folder) {
  const files = readdirSync(path.join(ROOT, folder)).filter((file) => /^(licen[cs]e|copying|notice)/i.test(file)).sort();
  const manifest = path.join(ROOT, folder, 'package.json');
  const { name = path.basename(folder), version = '', license = '' } = existsSync(manifest) ? readJson(manifest) : {};
  const text = files.map((file) => readFileSync(path.join(ROOT, folder, file), 'utf8')).join('\n');
  writeFileSync(path.join(out, 'LICENSES', `${name.replace('/', '+')}${version === '' ? '' : `@${version}`}.txt`), text || `${name} ${version}: ${license}\n`);
}

function readJson(file) {
  return JSON.parse(readFileSync(file, 'utf8'));
}

if (process.argv[1] !== undefined && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const [out, ...models] = process.argv.slice(2);
  if (out === undefined) {
    process.stderr.write('usage: node infra/image/app.mjs OUT [MODEL…]\n');
    process.exit(2);
  }
  try {
    const { bytes, packages } = await layOut(path.resolve(out), models);
    process.stdout.write(`${out}: ${(bytes / 1e6).toFixed(1)} MB of JavaScript with ${packages.length} packages inside\n`);
  } catch (error) {
    process.stderr.write(`app.mjs: ${error.message}\n`);
    process.exitCode = 1;
  }
}
