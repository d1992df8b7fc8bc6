#!/usr/bin/env node
/**
 * `npm run bench -- decode|sampler|objects|restore|checkpoint|front|batching|drain|slicing|slices|cold-start|large|figures`: builds what a fresh clone lacks, then measures (scripts/bench/main.ts).
 * Plain JavaScript with node: built-ins only at the top, because it runs before there are dependencies.
 */
import { BuildError, buildNative, ensureDeps } from './build.mjs';

try {
  await ensureDeps();
  await buildNative();
  await buildNative({ goal: 'bench' });
} catch (error) {
  process.stderr.write(error instanceof BuildError ? `ruminate: ${error.message}\n` : `${error.stack}\n`);
  process.exit(1);
}
const { register } = await import('tsx/esm/api');
register();
const { main } = await import('./bench/main.ts');
process.exitCode = await main(process.argv.slice(2));
