#!/usr/bin/env node
/**
 * `npm run chaos`: builds what a fresh clone lacks, then runs jobs on real workers, a real store and a real queue, and breaks all of them (scripts/chaos/main.ts).
 * Plain JavaScript with node: built-ins only at the top, because it runs before there are dependencies.
 */
import { buildNative, bundle, ensureDeps, runBuilt } from './build.mjs';

process.env.AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED ??= 'true';
await runBuilt(async () => {
  await ensureDeps();
  await buildNative();
  await bundle();
}, new URL('./chaos/main.ts', import.meta.url).href);
