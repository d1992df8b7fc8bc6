/** The API is one bundle for Node, Lambda and workerd. */
import { build } from 'esbuild';
import path from 'node:path';
import { expect, test } from 'vitest';

import { ROOT } from '../helpers/setup.ts';

test('the app bundles without anything of Node\'s and without native code, under 1 MB', async () => {
  // For a browser esbuild refuses every import that only Node has.
  const { outputFiles, metafile } = await build({
    entryPoints: [path.join(ROOT, 'functions', 'app.ts')], bundle: true, minify: true, format: 'esm', platform: 'browser', target: 'es2022', write: false, metafile: true, logLevel: 'silent',
  });
  expect(outputFiles[0]?.contents.byteLength).toBeLessThan(1_000_000);
  const inputs = Object.keys(metafile.inputs);
  expect(inputs.some((file) => file.endsWith('functions/openai/chat.ts'))).toBe(true);
  const engine = inputs.filter((file) => /(^|\/)engine\//.test(file) && !file.includes('node_modules')).map((file) => file.slice(file.lastIndexOf('engine/')));
  expect(engine.sort()).toEqual(['engine/core/clock.ts', 'engine/core/errors.ts', 'engine/core/host.ts', 'engine/core/limits.ts', 'engine/core/turns.ts', 'engine/job/elected.ts', 'engine/webhook/events.ts']);
});

test('so does the SQS queue', async () => {
  const { outputFiles } = await build({
    entryPoints: [path.join(ROOT, 'engine', 'adapters', 'sqs.ts')], bundle: true, minify: true, format: 'esm', platform: 'browser', target: 'es2022', write: false, logLevel: 'silent',
  });
  expect(outputFiles[0]?.contents.byteLength).toBeLessThan(400_000);
});
