/** Processes of a deployment, started with its own commands and environment and nothing else, and a job that they answer together. */
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { ROOT } from '../../../scripts/build.mjs';
import { peerPath } from '../../../scripts/peers/build.mjs';
import { layOut } from '../../image/app.mjs';
import { same } from './check.mjs';

const READY_MS_MAX = 60_000;
const JOB_MS_MAX = 60_000;
const STOP_MS_MAX = 20_000;
const LOG_BYTES = 4_000;
const JOB = { model: 'countdown', prompt: '4 20 8 13 target 59', budget: { width: 4, length: 96 }, seed: 1 };

/** The product as the image has it. */
export const APP = path.join(ROOT, 'build', 'app');

/** In the checkout, before anything is isolated. */
export async function layOutApp() {
  await layOut(APP, ['countdown']);
}

export class Deployment {
  #children = [];
  /** Its own, gone with it. */
  folder = mkdtempSync(path.join(tmpdir(), 'ruminate-check-'));

  /** @param env all that it has but PATH and HOME. */
  start(name, [command, ...args], env) {
    const child = spawn(command, args, { cwd: this.folder, env: { PATH: process.env.PATH, HOME: this.folder, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
    const it = { name, child, log: '', exited: new Promise((resolve) => child.once('close', (code, signal) => resolve(code ?? signal))) };
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => { it.log = (it.log + chunk).slice(-LOG_BYTES); });
    child.once('error', (error) => { it.log += error.message; });
    this.#children.push(it);
    return it;
  }

  /** S3 by versitygw, with its buckets as folders. @param args as the deployment has them, but for the folder. */
  startStore(args, env, buckets) {
    const data = path.join(this.folder, 'data');
    for (const bucket of buckets) mkdirSync(path.join(data, bucket), { recursive: true });
    return this.start('store', [peerPath('versitygw'), ...args.map((arg) => (arg === '/data' ? data : arg))], env);
  }

  /** SQS by ElasticMQ. @param config text of its file. */
  startQueue(config) {
    const file = path.join(this.folder, 'elasticmq.conf');
    writeFileSync(file, config);
    return this.start('queue', ['java', '-Xmx256m', `-Dconfig.file=${file}`, '-cp', path.join(peerPath('elasticmq'), '*'), 'org.elasticmq.server.Main'], {});
  }

  /** @throws Error: somebody ended, or it takes too long, with what it said. */
  async until(what, msMax, look) {
    for (const startedMs = performance.now(); ; await sleep(100)) {
      const found = await look().catch(() => null);
      if (found !== null && found !== false) return found;
      const ended = this.#children.find(({ child }) => child.exitCode !== null || child.signalCode !== null);
      if (ended !== undefined) throw new Error(`${ended.name} ended: ${ended.log}`);
      if (performance.now() - startedMs > msMax) throw new Error(`${what} is not there after ${msMax} ms\n${this.#children.map(({ name, log }) => `${name}: ${log.slice(-1_000)}`).join('\n')}`);
    }
  }

  listens(port, name) {
    return this.until(name, READY_MS_MAX, () => new Promise((resolve) => {
      const socket = connect({ host: '127.0.0.1', port }, () => resolve(true)).once('error', () => resolve(false));
      socket.once('close', () => resolve(false));
      setTimeout(() => socket.destroy(), 1_000).unref();
      socket.once('connect', () => socket.destroy());
    }));
  }

  /** A job by the API, to its end. @returns its result as JSON. */
  async answer({ url, key = null }) {
    // Each on a connection of its own: one that was kept may have been closed while this process was busy.
    const headers = { 'content-type': 'application/json', connection: 'close', ...(key === null ? {} : { authorization: `Bearer ${key}` }) };
    const ask = async (at, body) => {
      const response = await fetch(url + at, { method: body === undefined ? 'GET' : 'POST', headers, ...(body === undefined ? {} : { body: JSON.stringify(body) }) });
      if (!response.ok) throw new Error(`${at}: ${response.status} ${await response.text()}`);
      return await response.json();
    };
    await this.until('the API', READY_MS_MAX, async () => (await fetch(`${url}/health/ready`, { headers: { connection: 'close' } })).ok);
    const { id } = await ask('/v1/jobs', JOB);
    const job = await this.until('the end of the job', JOB_MS_MAX, async () => {
      const now = await ask(`/v1/jobs/${id}`);
      return ['queued', 'running', 'parked'].includes(now.state) ? null : now;
    });
    if (job.state !== 'done') throw new Error(`the job is ${job.state}: ${JSON.stringify(job)}`);
    return await ask(`/v1/jobs/${id}/result`);
  }

  /** @returns exit codes, by name. */
  async stop(...these) {
    for (const { child } of these) child.kill('SIGTERM');
    const late = sleep(STOP_MS_MAX, 'late', { ref: false });
    return await Promise.all(these.map(({ exited }) => Promise.race([exited, late])));
  }

  /** @param work with a deployment that is gone after it, whatever happens. */
  static async during(work) {
    const deployment = new Deployment();
    try {
      await work(deployment);
    } finally {
      await deployment.end();
    }
  }

  async end() {
    for (const { child } of this.#children) child.kill('SIGKILL');
    await Promise.all(this.#children.map(({ exited }) => exited));
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** @throws Error unless the result is what one quiet run of the same job gives. */
export function sameAsQuietRun(result) {
  const { prompt, budget: { width, length }, seed } = JOB;
  const { stdout, stderr, status } = spawnSync(process.execPath, [path.join(APP, 'bin', 'ruminate.mjs'), 'run', prompt, '--width', String(width), '--length', String(length), '--seed', String(seed), '--json'], { encoding: 'utf8' });
  if (status !== 0) throw new Error(stderr);
  const part = ({ answer, ballots, chains, usage: { kv_reads, completion_tokens } }) => ({ answer, ballots, tokens: chains.map(({ tokens }) => tokens), kv_reads, completion_tokens });
  same(part(result), part(JSON.parse(stdout)), 'the answer');
}

/** A file of --api-keys for one key. */
export function keysFile(key) {
  return JSON.stringify([{ sha256: createHash('sha256').update(key).digest('hex'), tenant: 'acme' }]);
}
