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
  // Schemas are refused with the request's own words, and before a job is.
  const grammar = ['characters', 'ebnf', 'grammar', 'json-rules', 'number-rules', 'pattern-rules', 'schema-grammar'];
  const core = ['clock', 'errors', 'host', 'json-size', 'limits', 'turns'];
  expect(engine.sort()).toEqual([...core.map((file) => `engine/core/${file}.ts`), ...['call-id', 'elected', ...grammar].toSorted().map((file) => `engine/job/${file}.ts`), 'engine/kv/reason.ts', 'engine/ports/telemetry.ts', 'engine/telemetry/names.ts', 'engine/webhook/events.ts']);
});

test('so does the SQS queue', async () => {
  const { outputFiles } = await build({
    entryPoints: [path.join(ROOT, 'engine', 'adapters', 'sqs.ts')], bundle: true, minify: true, format: 'esm', platform: 'browser', target: 'es2022', write: false, logLevel: 'silent',
  });
  expect(outputFiles[0]?.contents.byteLength).toBeLessThan(400_000);
});
