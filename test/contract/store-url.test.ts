/** URLs of stores: what opens, what is refused, and what is not loaded without need. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { build } from 'esbuild';
import { afterAll, describe, expect, test } from 'vitest';

import { openStore } from '../../engine/adapters/store-url.ts';
import { BUNDLE } from '../../scripts/build.mjs';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
// Below the checkout, where the bundle finds node_modules.
mkdirSync(path.join(ROOT, 'build', 'test'), { recursive: true });
const scratch = mkdtempSync(path.join(ROOT, 'build', 'test', 'store-url-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

describe('a store URL', () => {
  test.for([
    ['file:/var/kv', 'file:/var/kv'],
    ['file:///var/kv', 'file:/var/kv'],
    ['/var/kv/', 'file:/var/kv'],
    ['kv', `file:${path.resolve('kv')}`],
    ['./a%20b', `file:${path.resolve('a%20b')}`],
    ['memory:', 'memory:'],
    ['s3://bucket', 's3://bucket'],
    ['s3://bucket/', 's3://bucket'],
    ['s3://my.bucket-1/pre/fix/', 's3://my.bucket-1/pre/fix'],
  ] as const)('%s opens %s', async ([url, wanted]) => {
    expect((await openStore(url, { environment: { AWS_REGION: 'eu-west-1' } })).url).toBe(wanted);
  });

  test.for([
    '', '  ', 'file:', 'file:relative', 'file://host/path', 'file:/a?b', 'file:/a%2Fb', '/a\0b', 'memory:name', 'http://x/y', 'sqs:queue',
    's3:', 's3:bucket', 's3://', 's3://B', 's3://UPPER/x', 's3://a..b/x', 's3://bucket/../x', 's3://bucket//x', 's3://bucket/x?y', 's3://key:secret@bucket/x',
  ])('%j is refused', async (url) => {
    await expect(openStore(url, { environment: {} })).rejects.toMatchObject({ code: 'ERR_STORE_CONFIG' });
  });

  test('a directory that is not there is refused to who only reads, and made by who writes', async () => {
    for (const url of ['/nowhere/at/all', 'file:/nowhere/at/all']) {
      await expect(openStore(url, { mustExist: true })).rejects.toMatchObject({ code: 'ERR_STORE_CONFIG', message: expect.stringContaining('does not exist') as string });
      expect((await openStore(url)).url).toBe('file:/nowhere/at/all');
    }
    expect((await openStore('/', { mustExist: true })).url).toBe('file:/');
  });

  test('credentials in a URL are not repeated', async () => {
    await expect(openStore('s3://key:hidden@bucket/x', { environment: {} })).rejects.not.toThrow(/hidden/);
  });

  test('a bad endpoint or path style is refused', async () => {
    for (const environment of [{ RUMINATE_S3_ENDPOINT: 'localhost:9000' }, { AWS_ENDPOINT_URL_S3: 'ftp://x' }, { RUMINATE_S3_PATH_STYLE: 'yes' }]) {
      await expect(openStore('s3://bucket', { environment })).rejects.toMatchObject({ code: 'ERR_STORE_CONFIG' });
    }
  });
});

test('a local store loads no AWS SDK, bundled as the command is', async () => {
  const outdir = path.join(scratch, 'dist');
  await build({ ...BUNDLE, entryPoints: { store: path.join(ROOT, 'engine/adapters/store-url.ts') }, outdir });
  const script = `
    import { createRequire } from 'node:module';
    import { openStore } from ${JSON.stringify(pathToFileURL(path.join(outdir, 'store.mjs')).href)};
    const loaded = () => Object.keys(createRequire(import.meta.url).cache).some((file) => file.includes('@aws-sdk'));
    await (await openStore(process.argv[1])).probe();
    const local = loaded();
    await openStore('s3://bucket', { environment: { AWS_REGION: 'eu-west-1' } });
    console.log(JSON.stringify({ local, s3: loaded() }));`;
  const store = mkdtempSync(path.join(tmpdir(), 'ruminate-store-'));
  const out = execFileSync(process.execPath, ['--input-type=module', '-e', script, store], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  rmSync(store, { recursive: true });
  expect(JSON.parse(out)).toEqual({ local: false, s3: true });
});
