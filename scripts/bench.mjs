#!/usr/bin/env node
/**
 * `npm run bench -- decode|sampler|objects|restore|checkpoint|front|batching|drain|slicing|slices|cold-start|large|figures`: builds what a fresh clone lacks, then measures (scripts/bench/main.ts).
 * Plain JavaScript with node: built-ins only at the top, because it runs before there are dependencies.
 */
import { buildNative, ensureDeps, runBuilt } from './build.mjs';

process.env.AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED ??= 'true';
await runBuilt(async () => {
  await ensureDeps();
  await buildNative();
  await buildNative({ goal: 'bench' });
}, new URL('./bench/main.ts', import.meta.url).href);
