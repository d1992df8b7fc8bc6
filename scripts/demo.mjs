#!/usr/bin/env node
/**
 * `npm run demo`: builds what a fresh clone lacks, then runs one hyper-scaled job on the bundled model (scripts/demo/main.ts).
 * Plain JavaScript with node: built-ins only at the top, because it runs before there are dependencies.
 */
import { buildNative, bundle, ensureDeps, runBuilt } from './build.mjs';

await runBuilt(async () => {
  await ensureDeps();
  await buildNative();
  await bundle();
}, new URL('./demo/main.ts', import.meta.url).href);
