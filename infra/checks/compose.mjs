#!/usr/bin/env node
/**
 * compose.yaml: it is what the specification allows, what it pins is what bases.json says, and its commands and environment, to the letter, are four
 * processes that answer a job.
 */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { ROOT } from '../../scripts/build.mjs';
import { ensurePeer } from '../../scripts/peers/build.mjs';
import { checks } from './lib/check.mjs';
import { again, furnish, isInside, whyNotIsolated } from './lib/isolated.mjs';
import { APP, Deployment, keysFile, layOutApp, sameAsQuietRun } from './lib/platform.mjs';
import { tool } from './lib/tools.mjs';

const INFRA = path.join(ROOT, 'infra');
const MODEL = path.join(ROOT, 'build', 'app', 'compose.json');
const { check, skip, run } = checks();

/** What docker compose would make of it: anchors, defaults and variables resolved. @throws Error: it is not as the specification wants it. */
function rendered(compose, text) {
  const folder = mkdtempSync(path.join(tmpdir(), 'ruminate-compose-'));
  try {
    mkdirSync(path.join(folder, 'infra'));
    for (const file of ['elasticmq.conf']) writeFileSync(path.join(folder, 'infra', file), readFileSync(path.join(INFRA, file)));
    // The command reads no variables: what is required is said here.
    writeFileSync(path.join(folder, 'infra', 'compose.yaml'), text.replace(/\$\{(\w+):\?[^}]*\}/g, 'said-$1'));
    const { status, stdout, stderr } = spawnSync(compose, ['-format', 'json', 'compose.yaml'], { cwd: path.join(folder, 'infra'), encoding: 'utf8' });
    if (status !== 0) throw new Error(`${stdout}${stderr}`.trim());
    return JSON.parse(stdout);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function outside() {
  const text = readFileSync(path.join(INFRA, 'compose.yaml'), 'utf8');
  const { bases, services: pinned } = JSON.parse(readFileSync(path.join(INFRA, 'image', 'bases.json'), 'utf8'));
  await check('services of others are pinned as bases.json has them', () => {
    for (const { image, digest } of pinned) if (!text.includes(`image: ${image}@${digest}\n`)) throw new Error(`${image}@${digest}`);
    const pins = [...text.matchAll(/image: (?!\$)(.*)/g)].map(([, image]) => image);
    if (pins.length !== pinned.length) throw new Error(pins.join(', '));
  });
  await check('bases of the image are pinned as bases.json has them', () => {
    const dockerfile = readFileSync(path.join(INFRA, 'image', 'Dockerfile'), 'utf8');
    for (const { argument, image, digest } of bases) if (!dockerfile.includes(`ARG ${argument}=${image}@${digest}\n`)) throw new Error(`ARG ${argument}=${image}@${digest}`);
  });
  const compose = tool('compose-go');
  if ('missing' in compose) return void skip('compose.yaml', compose.missing);
  let model;
  if (!await check('the specification of Compose allows it', () => { model = rendered(compose.path, text); })) return;
  await check('a field that does not exist would be found', () => {
    try {
      rendered(compose.path, text.replace('read_only:', 'read_onlyy:'));
    } catch {
      return true;
    }
    return false;
  });
  await check('what runs has a read-only root, no new privileges, and no capability unless it owns volumes', () => {
    for (const [name, { read_only: isReadOnly, cap_drop: dropped, security_opt: options }] of Object.entries(model.services)) {
      if (isReadOnly !== true || !options.includes('no-new-privileges:true') || (name !== 'store' && dropped?.[0] !== 'ALL')) throw new Error(name);
    }
  });
  await check('nothing but the API is published, and to this machine alone', () => {
    for (const [name, { ports = [] }] of Object.entries(model.services)) {
      if (ports.some(({ host_ip: ip }) => ip !== '127.0.0.1') || (name !== 'api' && ports.length > 0)) throw new Error(name);
    }
  });
  await check('a worker is given longer to stop than its grace', () => parseInt(model.services.worker.stop_grace_period, 10) > parseInt(model.services.worker.environment.RUMINATE_GRACE, 10));
  for (const peer of ['versitygw', 'elasticmq']) {
    const found = ensurePeer(peer);
    if ('missing' in found) return void skip('its environment', found.missing);
  }
  const why = whyNotIsolated();
  if (why !== null) return void skip('its environment', why);
  await layOutApp();
  writeFileSync(MODEL, JSON.stringify(model));
  await check('its commands and environment answer a job (above)', again() === 0);
}

async function inside(deployment) {
  const { services, secrets } = JSON.parse(readFileSync(MODEL, 'utf8'));
  furnish({ hosts: Object.keys(services) });
  const { store, queue, api, worker } = services;
  const buckets = store.volumes.map(({ target }) => path.basename(target));
  deployment.startStore(store.command, store.environment, buckets);
  deployment.startQueue(readFileSync(path.join(INFRA, 'elasticmq.conf'), 'utf8'));
  await Promise.all([deployment.listens(7070, 'store'), deployment.listens(9324, 'queue')]);
  const key = 'a-key-for-a-check';
  for (const { source, target } of api.secrets) {
    if (secrets[source] === undefined) throw new Error(`there is no secret ${source}`);
    mkdirSync(path.dirname(target), { recursive: true });
    writeFileSync(target, keysFile(key));
  }
  const ruminate = [process.execPath, path.join(APP, 'bin', 'ruminate.mjs')];
  // Where the image keeps models, and its port for health: here all have one network.
  const image = { RUMINATE_CACHE: deployment.folder, RUMINATE_METRICS_PORT: '9464' };
  const front = deployment.start('api', [...ruminate, ...api.command], { ...image, ...api.environment });
  const back = deployment.start('worker', [...ruminate, ...worker.command], { ...image, ...worker.environment });
  await check('serve and worker answer a job over versitygw and ElasticMQ with the environment of compose.yaml, as a quiet run does', async () => {
    sameAsQuietRun(await deployment.answer({ url: 'http://127.0.0.1:8787', key }));
  });
  await check('without a key nobody is answered', async () => (await fetch('http://127.0.0.1:8787/v1/models', { headers: { connection: 'close' } })).status === 401);
  await check('the health checks of store and queue pass', async () => {
    for (const { healthcheck: { test } } of [store, queue]) if (!(await fetch(test.at(-1))).ok) throw new Error(test.at(-1));
  });
  await check('the worker tells its health', async () => (await fetch('http://127.0.0.1:9464/health/ready')).ok);
  await check('SIGTERM ends both with 0', async () => (await deployment.stop(front, back)).every((code) => code === 0), `${front.log.slice(-300)}${back.log.slice(-300)}`);
}

await run(() => (isInside ? Deployment.during(inside) : outside()), { isPart: isInside });
