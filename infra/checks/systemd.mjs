#!/usr/bin/env node
/** The unit of infra/systemd: systemd accepts it, it lets a service do little, and its ExecStart with its environment, to the letter, answers a job. */
import { spawnSync } from 'node:child_process';
import { copyFileSync, cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { ROOT } from '../../scripts/build.mjs';
import { checks } from './lib/check.mjs';
import { again, furnish, isInside, mountAt, whyNotIsolated } from './lib/isolated.mjs';
import { APP, Deployment, layOutApp, sameAsQuietRun } from './lib/platform.mjs';

const UNITS = path.join(ROOT, 'infra', 'systemd');
const UNIT = 'ruminate@.service';
/** Of 10, by `systemd-analyze security`; 9 and more it calls unsafe. */
const EXPOSURE_MAX = 1.5;
const SPECIFIERS = { '%S': '/var/lib', '%C': '/var/cache' };
const { check, skip, run } = checks();

const settings = readFileSync(path.join(UNITS, UNIT), 'utf8').split('\n').map((line) => /^(\w+)=(.*)$/.exec(line)).filter((match) => match !== null);
const all = (name) => settings.filter(([, key]) => key === name).map(([, , value]) => value);

async function outside() {
  const seconds = (text) => parseInt(text, 10);
  const [, grace] = /RUMINATE_GRACE=(\d+s)/.exec(all('Environment').join(' ')) ?? [];
  await check('a worker is given longer to stop than its grace', seconds(all('TimeoutStopSec')[0]) > seconds(grace));
  if (spawnSync('systemd-analyze', ['--version']).status !== 0) skip('what systemd says of it', 'there is no systemd-analyze');
  else await accepted();
  const why = whyNotIsolated();
  if (why !== null) return void skip('its ExecStart', why);
  await layOutApp();
  await check('its ExecStart answers a job (above)', again() === 0);
}

async function accepted() {
  const folder = mkdtempSync(path.join(tmpdir(), 'ruminate-units-'));
  try {
    cpSync(UNITS, folder, { recursive: true });
    // Where the program is on the machine that it is for.
    writeFileSync(path.join(folder, UNIT), readFileSync(path.join(folder, UNIT), 'utf8').replaceAll('/usr/bin/node', process.execPath));
    for (const instance of ['serve', 'worker']) {
      const unit = path.join(folder, `ruminate@${instance}.service`);
      copyFileSync(path.join(folder, UNIT), unit);
      const ask = (...args) => spawnSync('systemd-analyze', [...args, unit], { encoding: 'utf8' });
      const { status, stderr } = ask('verify', '--man=no');
      await check(`systemd accepts ruminate@${instance} with its drop-ins, without a word`, status === 0 && stderr.trim() === '', stderr);
      const { status: exposed, stdout } = ask('security', '--offline=true', `--threshold=${EXPOSURE_MAX * 10}`);
      await check(`its exposure is ${EXPOSURE_MAX} of 10 at most`, exposed === 0, /Overall.*/.exec(stdout)?.[0] ?? stdout);
    }
    const damaged = path.join(folder, 'damaged.service');
    writeFileSync(damaged, readFileSync(path.join(folder, UNIT), 'utf8').replace('ProtectSystem=', 'ProtectSystems='));
    await check('a setting that does not exist would be found', spawnSync('systemd-analyze', ['verify', '--man=no', damaged], { encoding: 'utf8' }).stderr.includes("Unknown key 'ProtectSystems'"));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function inside(deployment) {
  furnish({ folders: ['/run', '/opt', '/var/lib', '/var/cache'] });
  mountAt(APP, '/opt/ruminate');
  const expand = (text, instance) => text.replace(/%[SCi]/g, (specifier) => (specifier === '%i' ? instance : SPECIFIERS[specifier]));
  const start = (instance, extra = {}) => {
    const env = Object.fromEntries(expand(all('Environment').join(' '), instance).split(' ').map((pair) => pair.split(/=(.*)/s, 2)));
    mkdirSync(env.HOME, { recursive: true });
    const { RUMINATE_ARGS = '', ...rest } = { ...env, ...extra };
    const [node, ...args] = expand(all('ExecStart')[0], instance).replace('$RUMINATE_ARGS', RUMINATE_ARGS).split(' ').filter((word) => word !== '');
    return deployment.start(`ruminate@${instance}`, [node === '/usr/bin/node' ? process.execPath : node, ...args], rest);
  };
  const front = start('serve', { RUMINATE_ARGS: '--no-worker' });
  const back = start('worker');
  await check('ruminate@serve and ruminate@worker answer a job by the folder that they share, as a quiet run does', async () => {
    sameAsQuietRun(await deployment.answer({ url: 'http://127.0.0.1:8787' }));
  });
  await check('the worker tells its health', async () => (await fetch('http://127.0.0.1:9464/health/ready')).ok);
  await check('SIGTERM ends both with 0', async () => (await deployment.stop(front, back)).every((code) => code === 0), `${front.log.slice(-300)}${back.log.slice(-300)}`);
}

await run(() => (isInside ? Deployment.during(inside) : outside()), { isPart: isInside });
