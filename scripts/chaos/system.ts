/** The system under test: an API and workers, each a process, over a site; between each of them and each server a wire of its own. */
import { mkdirSync } from 'node:fs';
import path from 'node:path';

import { seededRandom } from '../../engine/adapters/memory-faults.ts';
import { freePort } from '../../test/helpers/port.ts';
import { canBeApart, Member } from './member.ts';
import type { Plan } from './plan.ts';
import { type Outside, outsideSite, type Own, ownSite, type Site } from './site.ts';
import { Wire } from './wire.ts';

export interface SystemOptions {
  readonly plan: Plan;
  readonly folder: string;
  readonly on: Own | Outside;
}

/** A worker that writes at least every 3 s counts as gone after 9, and is looked for every 5. */
const PACE = ['--checkpoint-time', '3s', '--journal-time', '700ms', '--checkpoint-tokens', '150', '--walk-time', '5s', '--threads', '1'];
/** What somebody else's workers are told by their environment. */
const OWN = ['--slots', '4', '--slice-time', '4s', '--webhooks-to-loopback'];
/** Where a process looks for them: each gets a wire of its own, if it is one of this machine's. */
const ENDPOINTS = ['RUMINATE_S3_ENDPOINT', 'RUMINATE_SQS_ENDPOINT'] as const;

/** One of ours, and what lies between it and the servers. */
interface Wired {
  readonly member: Member;
  readonly wires: readonly Wire[];
}

export class System implements AsyncDisposable {
  readonly url: string;
  /** null: it is somebody else's. */
  readonly front: Wired | null;
  readonly workers: readonly Wired[];
  readonly site: Site;
  /** Of what all have said in their logs. */
  readonly said: ReadonlyMap<string, number>;
  /** Some workers are seen to be dead, the others only to be silent. */
  readonly apart: number;
  readonly #parts: readonly AsyncDisposable[];

  private constructor(parts: Pick<System, 'url' | 'front' | 'workers' | 'site' | 'said' | 'apart'>, disposables: readonly AsyncDisposable[]) {
    this.url = parts.url;
    this.front = parts.front;
    this.workers = parts.workers;
    this.site = parts.site;
    this.said = parts.said;
    this.apart = parts.apart;
    this.#parts = disposables;
  }

  static async start(options: SystemOptions): Promise<System> {
    const parts: AsyncDisposable[] = [];
    try {
      return await System.#start(options, parts);
    } catch (error) {
      await disposeAll(parts);
      throw error;
    }
  }

  static async #start({ plan, folder, on }: SystemOptions, parts: AsyncDisposable[]): Promise<System> {
    const use = <T extends AsyncDisposable>(part: T): T => {
      parts.push(part);
      return part;
    };
    const [data, logs] = [path.join(folder, 's3'), path.join(folder, 'logs')];
    for (const each of [data, logs]) mkdirSync(each, { recursive: true });
    const site = use('worker' in on ? await outsideSite(on) : await ownSite(on, data));
    const said = new Map<string, number>();
    const random = seededRandom(plan.seed + 1);
    /** Most of what passes is not held up; some is, a little or for longer. */
    const delayMs = () => {
      const which = random();
      return which < 0.75 ? 0 : which < 0.97 ? random() * 8 : 20 + random() * 100;
    };
    const wired = async (name: string, args: readonly string[], isApart: boolean): Promise<Wired> => {
      const [wires, env] = [[] as Wire[], { ...site.environment }];
      for (const endpoint of ENDPOINTS) {
        const { protocol, port } = new URL(env[endpoint] ?? 'https://amazonaws.com');
        if (protocol !== 'http:') continue;
        const wire = use(await Wire.to({ port: Number(port), delayMs }));
        env[endpoint] = wire.endpoint;
        wires.push(wire);
      }
      return { member: use(new Member({ name, args, env, folder: logs, isApart, said })), wires };
    };
    const port = await freePort();
    const front = site.url === null ? await wired('front', ['serve', '--no-worker', '--port', `${port}`, '--webhooks-to-loopback'], false) : null;
    const separable = canBeApart();
    const worker = ['worker', ...PACE, ...(site.url === null ? OWN : [])];
    const workers = await Promise.all(Array.from({ length: plan.workers }, (_, i) => wired(`worker-${i}`, worker, separable && i % 2 === 1)));
    for (const { member } of [...(front === null ? [] : [front]), ...workers]) member.start();
    for (const { member } of workers) await member.begun();
    const apart = separable ? Math.floor(plan.workers / 2) : 0;
    return new System({ url: site.url ?? `http://127.0.0.1:${port}`, front, workers, site, said, apart }, parts);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await disposeAll(this.#parts);
  }
}

/** The last first. */
async function disposeAll(parts: readonly AsyncDisposable[]): Promise<void> {
  for (const part of parts.toReversed()) await part[Symbol.asyncDispose]();
}
