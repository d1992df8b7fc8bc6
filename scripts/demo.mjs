#!/usr/bin/env node
/**
 * `npm run demo`: builds what a fresh clone lacks, then runs one hyper-scaled job on the bundled model (scripts/demo/main.ts).
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
// The demo reads the sources themselves, so that what it shows is what is in the checkout.
const { register } = await import('tsx/esm/api');
register();
const { main } = await import('./demo/main.ts');
process.exitCode = await main(process.argv.slice(2));
