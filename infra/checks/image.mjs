#!/usr/bin/env node
/**
 * The image, as far as no image is built: hadolint finds nothing, it says of itself what the engine can, it is made of what the context holds, and the tree
 * that it lays out runs by itself. `npm run infra:image` builds and runs it.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';

import { ROOT } from '../../scripts/build.mjs';
import { checks } from './lib/check.mjs';
import { APP, layOutApp } from './lib/platform.mjs';
import { tool } from './lib/tools.mjs';

const IMAGE = path.join(ROOT, 'infra', 'image');
const dockerfile = readFileSync(path.join(IMAGE, 'Dockerfile'), 'utf8');
/** Of JavaScript: what would be more has taken something along that nobody runs. */
const BUNDLE_BYTES_MAX = 8_000_000;
const { check, skip, end } = checks();

async function main() {
  const hadolint = tool('hadolint');
  if ('missing' in hadolint) skip('hadolint', hadolint.missing);
  else {
    const lint = (text) => spawnSync(hadolint.path, ['--failure-threshold', 'style', '-'], { input: text, encoding: 'utf8' });
    const { status, stdout } = lint(dockerfile);
    await check('hadolint finds nothing, not even style', status === 0, stdout);
    await check('a step that it knows better would be found', lint(`${dockerfile}\nRUN cd /tmp && sudo true\n`).status !== 0);
  }
  await check('it is no root, has a health check, and no shell starts it', () => {
    for (const line of [/^USER 65532:65532$/m, /^HEALTHCHECK .*\\\n {2}CMD \["/m, /^ENTRYPOINT \["/m, /^CMD \["worker"\]$/m]) if (!line.test(dockerfile)) throw new Error(String(line));
  });
  await check('its label names the backends that the engine has', () => {
    const backends = readdirSync(path.join(ROOT, 'native', 'backend'), { withFileTypes: true }).filter((entry) => entry.isDirectory() && entry.name !== 'reference').map(({ name }) => name).sort().join(',');
    const labels = [...dockerfile.matchAll(/ruminate\.backends="([^"]*)"/g)].map(([, label]) => label);
    if (labels.length !== 2 || labels.some((label) => label !== backends)) throw new Error(`${labels.join(' and ')} for ${backends}`);
  });
  await check('what it copies is in the context', () => {
    const ignore = readFileSync(path.join(IMAGE, 'Dockerfile.dockerignore'), 'utf8').split('\n');
    const sources = [...dockerfile.matchAll(/^COPY (?!--from)(.+) \S+$/gm)].flatMap(([, files]) => files.split(' '));
    if (sources.length < 10) throw new Error(`${sources.length} sources`);
    for (const file of sources) if (!existsSync(path.join(ROOT, file)) || !ignore.includes(`!${file}`)) throw new Error(file);
  });
  await layOutApp();
  const run = (...args) => spawnSync(process.execPath, [path.join(APP, 'bin', 'ruminate.mjs'), ...args], { cwd: '/', encoding: 'utf8', env: { PATH: process.env.PATH, HOME: '/nonexistent' } });
  await check('what it lays out runs a job by itself', () => {
    const { status, stdout, stderr } = run('run', '4 20 8 13 target 59', '--width', '2', '--length', '32', '--json');
    if (status !== 0 || JSON.parse(stdout).chains.length !== 2) throw new Error(stderr);
  });
  await check('what it lays out is no checkout, and has one bundle of a few megabytes', () => {
    const bytes = readdirSync(path.join(APP, 'dist')).reduce((sum, file) => sum + statSync(path.join(APP, 'dist', file)).size, 0);
    if (bytes > BUNDLE_BYTES_MAX || existsSync(path.join(APP, 'package-lock.json'))) throw new Error(`${bytes} bytes`);
  });
  await check('the licence of every package inside is beside it', () => {
    const files = readdirSync(path.join(APP, 'LICENSES'));
    for (const name of ['hono@', '@aws-sdk+client-s3@', 'zstd.txt', 'blake3.txt', '@mlc-ai+web-xgrammar@']) if (!files.some((file) => file.startsWith(name))) throw new Error(name);
  });
}

try {
  await main();
} catch (error) {
  await check('the check itself', false, error.stack);
}
end();
