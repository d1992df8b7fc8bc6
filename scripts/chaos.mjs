#!/usr/bin/env node
/**
 * `npm run chaos`: builds what a fresh clone lacks, then runs jobs on real workers, a real store and a real queue, and breaks all of them (scripts/chaos/main.ts).
 * Plain JavaScript with node: built-ins only at the top, because it runs before there are dependencies.
 */
import { BuildError, buildNative, bundle, ensureDeps } from './build.mjs';

try {
  await ensureDeps();
  await buildNative();
  await bundle();
} catch (error) {
  process.stderr.write(error instanceof BuildError ? `ruminate: ${error.message}\n` : `${error.stack}\n`);
  process.exit(1);
}
process.env.AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED ??= 'true';
const { register } = await import('tsx/esm/api');
register();
const { main } = await import('./chaos/main.ts');
process.exitCode = await main(process.argv.slice(2));
