#!/usr/bin/env node
/** `ruminate`: in a checkout, builds what is missing or older than its sources; then hands over to dist/cli.mjs. */
import { existsSync, readdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');

// An installed package is what was published: it has no lock file, and its files' times say nothing.
if (existsSync(path.join(ROOT, 'package-lock.json')) && isStale()) {
  try {
    const { ensureDeps, buildNative, bundle } = await import('../scripts/build.mjs');
    await ensureDeps();
    await buildNative();
    await bundle();
  } catch (error) {
    process.stderr.write(`ruminate: ${error.message}\n`);
    process.exit(1);
  }
}
await import('../dist/cli.mjs');

function isStale() {
  return (
    timeOf('node_modules/.package-lock.json') < timeOf('package-lock.json') ||
    timeOf('dist/cli.mjs') < Math.max(newest('cli'), newest('functions'), newest('engine')) ||
    timeOf('build/native/ruminate.node') < newest('native', 'test')
  );
}

/** Time of the newest file below `folder`; `except` names a folder that does not go into the product. */
function newest(folder, except) {
  let time = 0;
  for (const entry of readdirSync(path.join(ROOT, folder), { withFileTypes: true })) {
    const name = path.join(folder, entry.name);
    if (entry.name === except) continue;
    time = Math.max(time, entry.isDirectory() ? newest(name) : timeOf(name));
  }
  return time;
}

function timeOf(name) {
  return statSync(path.join(ROOT, name), { throwIfNoEntry: false })?.mtimeMs ?? 0;
}
