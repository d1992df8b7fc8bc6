/**
 * Runs an image as its users do, with podman and runc: as its own user, on a read-only root, a server and a worker in containers of their own that share
 * nothing but a volume. A job is answered, the health check passes, SIGTERM parks what runs.
 */
import { createHash, randomBytes } from 'node:crypto';
import { chmodSync, chownSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { ImageError, run } from './tools.mjs';

/** The user of the image. */
const USER = 65_532;
/** crun 1.8 refuses a machine with both versions of cgroups, and a machine may not raise its limits: neither is about the image. */
export const RUNTIME = ['--runtime', 'runc', '--cgroup-manager', 'cgroupfs'];
export const LIMITS = ['--ulimit', 'nofile=1024:1024', '--ulimit', 'nproc=4096:4096'];
const READY_MS_MAX = 60_000;
const JOB_MS_MAX = 120_000;
const JOB = { model: 'countdown', prompt: '4 20 8 13 target 59', budget: { width: 4, length: 128 }, seed: 1 };

/** @param check told of each thing that holds or does not. */
export async function runImage({ storage, folder, image, check, say }) {
  const podman = (args, options) => run('podman', [...storage, ...RUNTIME, ...args], options);
  const data = path.join(folder, 'data');
  rmSync(data, { recursive: true, force: true });
  mkdirSync(data, { recursive: true });
  chownSync(data, USER, USER);
  const key = randomBytes(24).toString('hex');
  const keys = path.join(folder, 'api-keys.json');
  writeFileSync(keys, JSON.stringify([{ sha256: createHash('sha256').update(key).digest('hex'), tenant: 'acme' }]));
  chmodSync(keys, 0o444);
  const started = [];
  const start = (name, options, command) => {
    const id = podman(['run', '--detach', '--read-only', '--read-only-tmpfs=false', '--cap-drop=all', '--security-opt=no-new-privileges', ...LIMITS, '--volume', `${data}:/var/lib/ruminate`, ...options, image, ...command]);
    started.push(id);
    say(`started ${name} as ${id.slice(0, 12)}`);
    return id;
  };
  const logs = () => started.map((id) => run('sh', ['-c', `podman ${[...storage, ...RUNTIME].join(' ')} logs ${id} 2>&1 | tail -n 20`])).join('\n');
  try {
    const server = start('the server', ['--publish', '127.0.0.1::8787', '--volume', `${keys}:/run/api-keys.json:ro`], ['serve', '--host', '0.0.0.0', '--no-worker', '--store', 'jobs', '--api-keys', '/run/api-keys.json']);
    const worker = start('a worker', [], ['worker', '--store', 'jobs', '--threads', '1']);
    const address = podman(['port', server, '8787/tcp']).split('\n')[0];
    const ask = async (url, body) => {
      // Each on a connection of its own: one that was kept may have been closed while this process was busy.
      const response = await fetch(`http://${address}${url}`, { method: body === undefined ? 'GET' : 'POST', headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json', connection: 'close' }, ...(body === undefined ? {} : { body: JSON.stringify(body) }) });
      if (!response.ok) throw new ImageError(`${url} was answered ${response.status}: ${await response.text()}`);
      return await response.json();
    };
    const until = async (what, msMax, look) => {
      for (const startedMs = performance.now(); performance.now() - startedMs < msMax; await sleep(200)) {
        const found = await look().catch((error) => (error instanceof ImageError ? Promise.reject(error) : null));
        if (found !== null && found !== false) return found;
      }
      throw new ImageError(`${what} did not happen within ${msMax} ms`);
    };
    await until('the server', READY_MS_MAX, async () => (await fetch(`http://${address}/health/ready`, { headers: { connection: 'close' } })).ok);
    const { id } = await ask('/v1/jobs', JOB);
    const job = await until('the end of the job', JOB_MS_MAX, async () => {
      const now = await ask(`/v1/jobs/${id}`);
      return ['queued', 'running', 'parked'].includes(now.state) ? null : now;
    });
    const result = await ask(`/v1/jobs/${id}/result`);
    check('a job that the server was asked for is answered by the worker', job.state === 'done' && result.chains.length === JOB.budget.width, JSON.stringify(job));
    check('the same answer as outside the image', JSON.stringify(answerOf(result)) === JSON.stringify(answerOf(outside())), JSON.stringify(answerOf(result)));
    const format = await ask('/v1/chat/completions', { model: 'countdown', messages: [{ role: 'user', content: '4 20 8 13 target 59' }], max_completion_tokens: 32, response_format: { type: 'json_schema', json_schema: { name: 'n', strict: true, schema: { type: 'integer' } } } }).then(() => null, (error) => error.message);
    check('a grammar is compiled in its thread', format === null, format ?? '');
    for (const [name, container] of [['server', server], ['worker', worker]]) {
      check(`the health check of the ${name} passes`, succeeds(() => podman(['healthcheck', 'run', container])));
      const status = podman(['exec', container, '/usr/local/bin/node', '-p', "const s = require('fs').readFileSync('/proc/1/status', 'utf8'); [/^Uid:\\s+(\\d+)/m, /^CapEff:\\s+(\\w+)/m, /^NoNewPrivs:\\s+(\\d)/m].map((p) => p.exec(s)[1]).join(' ')"]);
      check(`the ${name} runs as ${USER}, without any capability`, status === `${USER} 0000000000000000 1`, status);
      const wrote = podman(['exec', container, '/usr/local/bin/node', '-p', "['/x', '/app/x', '/tmp/x', '/etc/x'].map((f) => { try { require('fs').writeFileSync(f, ''); return f; } catch (e) { return e.code; } }).join(' ')"]);
      check(`the ${name} can write nothing but its volume`, wrote === 'EROFS EROFS EROFS EROFS', wrote);
    }
    for (const [name, container] of [['server', server], ['worker', worker]]) {
      podman(['stop', '--time', '60', container], { minutes: 2 });
      const code = podman(['inspect', '--format', '{{.State.ExitCode}}', container]);
      check(`SIGTERM ends the ${name} with 0`, code === '0', code);
    }
  } catch (error) {
    check('the image runs', false, `${error.message}\n${logs()}`);
  } finally {
    if (started.length > 0) podman(['rm', '--force', '--time', '5', ...started]);
  }

  /** What this checkout answers. */
  function outside() {
    return JSON.parse(run(process.execPath, ['bin/ruminate.mjs', 'run', JOB.prompt, '--width', String(JOB.budget.width), '--length', String(JOB.budget.length), '--seed', String(JOB.seed), '--json']));
  }
}

function answerOf({ answer, ballots, chains, usage }) {
  return { answer, ballots, tokens: chains.map(({ tokens }) => tokens), kv_reads: usage.kv_reads };
}

function succeeds(call) {
  try {
    call();
    return true;
  } catch {
    return false;
  }
}
