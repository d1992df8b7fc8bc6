/**
 * Runs infra/systemd under a real systemd, process 1 of a container: every restriction of the unit is in force while ruminate@serve and ruminate@worker
 * answer a job.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { ROOT } from '../../scripts/build.mjs';
import { LIMITS, RUNTIME } from './running.mjs';
import { ImageError, run } from './tools.mjs';

const MACHINE = 'localhost/machine:bookworm';
const READY_MS_MAX = 60_000;
const JOB = { model: 'countdown', prompt: '4 20 8 13 target 59', budget: { width: 4, length: 128 }, seed: 1 };

export async function runUnits({ storage, buildah, base, product, check, say }) {
  const podman = (args, options) => run('podman', [...storage, ...RUNTIME, ...args], options);
  const folder = mkdtempSync(path.join(tmpdir(), 'ruminate-machine-'));
  let machine = null;
  try {
    writeFileSync(path.join(folder, 'Dockerfile'), `FROM ${base}
RUN apt-get update && apt-get install -y --no-install-recommends systemd dbus libnss-systemd && rm -rf /var/lib/apt/lists/* && ln -s /usr/local/bin/node /usr/bin/node
CMD ["/lib/systemd/systemd"]
`);
    buildah(['build', '--isolation', 'chroot', '--layers', '-t', MACHINE, folder], { minutes: 15 });
    machine = podman(['run', '--detach', '--systemd=always', '--privileged', ...LIMITS, MACHINE]);
    say(`started a machine with systemd as ${machine.slice(0, 12)}`);
    const shell = (line) => podman(['exec', machine, 'sh', '-c', line]);
    const until = async (what, look) => {
      for (const startedMs = performance.now(); performance.now() - startedMs < READY_MS_MAX; await sleep(500)) {
        try {
          const found = look();
          if (found !== '') return found;
        } catch {
          // Not yet.
        }
      }
      throw new ImageError(`${what} did not happen: ${shell('journalctl --no-pager -n 30 -u "ruminate@*"')}`);
    };
    await until('the start of systemd', () => shell('systemctl is-system-running --wait || true'));
    podman(['cp', product, `${machine}:/opt/ruminate`]);
    podman(['cp', path.join(ROOT, 'infra', 'systemd', 'ruminate@.service'), `${machine}:/etc/systemd/system/`]);
    shell('chmod -R go+rX /opt/ruminate && mkdir -p /etc/ruminate');
    // The API alone here, so that the worker's own unit answers.
    shell('mkdir -p /etc/systemd/system/ruminate@serve.service.d && printf "[Service]\\nEnvironment=RUMINATE_ARGS=--no-worker\\n" > /etc/systemd/system/ruminate@serve.service.d/alone.conf && systemctl daemon-reload');
    shell('systemctl start ruminate@serve ruminate@worker');
    const fetched = (url, body) => shell(`node -e "fetch('http://127.0.0.1:${url}', ${body === undefined ? '{}' : `{ method: 'POST', headers: { 'content-type': 'application/json' }, body: Buffer.from('${Buffer.from(JSON.stringify(body)).toString('hex')}', 'hex') }`}).then(async (r) => { if (!r.ok) process.exit(1); console.log(await r.text()); }, () => process.exit(1))"`);
    await until('the API', () => fetched('8787/health/ready'));
    await until('the worker', () => fetched('9464/health/ready'));
    const { id } = JSON.parse(fetched('8787/v1/jobs', JOB));
    const state = await until('the end of the job', () => {
      const now = JSON.parse(fetched(`8787/v1/jobs/${id}`)).state;
      return ['queued', 'running', 'parked'].includes(now) ? '' : now;
    });
    check('under systemd, with every restriction of the unit, ruminate@serve and ruminate@worker answer a job', state === 'done', state);
    const pid = shell('systemctl show -P MainPID ruminate@worker');
    const status = shell(`cat /proc/${pid}/status`);
    const of = (key) => new RegExp(`^${key}:\\s*(\\S+)`, 'm').exec(status)?.[1];
    check('the worker is no root, has no capability, and its system calls are filtered', of('Uid') !== '0' && of('CapBnd') === '0000000000000000' && of('Seccomp') === '2' && of('NoNewPrivs') === '1', status);
    check('both share a folder that nobody else can reach', shell('stat -c %a /var/lib/private') === '700');
    shell('systemctl stop ruminate@worker ruminate@serve');
    const ended = shell('systemctl show -P ExecMainStatus ruminate@worker ruminate@serve').split(/\s+/).filter((code) => code !== '');
    check('systemctl stop ends both with 0', ended.length === 2 && ended.every((code) => code === '0'), ended.join(' '));
    shell('echo RUMINATE_GRACE=soon > /etc/ruminate/ruminate.env && systemctl start ruminate@worker; sleep 8');
    check('a worker with a wrong configuration is not started again and again', shell('systemctl is-failed ruminate@worker; systemctl show -P NRestarts ruminate@worker').split(/\s+/).join(' ') === 'failed 0', shell('systemctl show -P NRestarts ruminate@worker'));
  } catch (error) {
    check('the units run', false, error.message);
  } finally {
    if (machine !== null) podman(['rm', '--force', '--time', '5', machine]);
    rmSync(folder, { recursive: true, force: true });
  }
}
