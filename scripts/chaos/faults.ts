/** Does to the system what the plan says, and counts what was done. */
import { setTimeout as sleep } from 'node:timers/promises';

import type { Member } from './member.ts';
import { FAULTS, type Fault, type FaultKind } from './plan.ts';
import type { System } from './system.ts';

/** A kill waits so long for somebody who has something to lose. */
const VICTIM_MS_MAX = 10_000;
const LOOK_MS = 50;

export interface Done extends Readonly<Record<FaultKind, number>> {
  /** Of the kills: slices that ran there and then. */
  readonly interrupted: number;
  readonly messagesDeleted: number;
}

export class Faults {
  readonly #system: System;
  readonly #done = Object.fromEntries([...FAULTS, 'interrupted', 'messagesDeleted'].map((kind) => [kind, 0])) as { -readonly [K in keyof Done]: number };
  /** One restart of a server at a time. */
  #servers: Promise<void> = Promise.resolve();

  constructor(system: System) {
    this.#system = system;
  }

  get done(): Done {
    return { ...this.#done };
  }

  /** Resolves when it is over, and what it took away is there again. */
  async do({ kind, forMs, whom, leadMs }: Fault): Promise<void> {
    const { site, front } = this.#system;
    switch (kind) {
      case 'kill': {
        const victim = await this.#victim(whom, leadMs);
        this.#done.interrupted += victim.running.size;
        await this.#replace(victim, 'SIGKILL');
        break;
      }
      case 'drain': {
        await this.#replace(await this.#victim(whom, leadMs), 'SIGTERM');
        break;
      }
      case 'stop': {
        const victim = await this.#victim(whom, leadMs);
        victim.stop();
        await sleep(forMs);
        victim.wake();
        break;
      }
      case 'front': {
        if (front !== null) await this.#replace(front.member, 'SIGKILL');
        break;
      }
      case 'store': {
        await (this.#servers = this.#servers.then(() => site.restartStore(forMs)));
        break;
      }
      case 'queue': {
        await (this.#servers = this.#servers.then(() => site.restartQueue(forMs)));
        break;
      }
      case 'purge': {
        await (this.#servers = this.#servers.then(async () => {
          this.#done.messagesDeleted += await site.purge();
        }));
        break;
      }
      case 'cut': {
        for (const wire of this.#wires(whom)) wire.cut();
        break;
      }
      case 'part': {
        await Promise.all(this.#wires(whom).map((wire) => wire.part(forMs)));
        break;
      }
    }
    this.#done[kind]++;
  }

  /** A worker that runs something, if one does before long; never one that is stopped, and never the last that is not. */
  async #victim(whom: number, leadMs: number): Promise<Member> {
    let lead = leadMs;
    for (const startedMs = performance.now(); ; await sleep(LOOK_MS)) {
      const up = this.#system.workers.map(({ member }) => member).filter((member) => member.isWorking);
      const isLate = performance.now() - startedMs > VICTIM_MS_MAX;
      const busy = up.filter((member) => member.running.size > 0 || isLate);
      const found = busy[Math.floor(whom * busy.length)];
      if (found === undefined || up.length === 1) continue;
      await sleep(lead);
      // Another fault may have met it meanwhile, and it may be through with what it had: the next one is given less time.
      if (found.isWorking && (found.running.size > 0 || isLate)) return found;
      lead /= 2;
    }
  }

  async #replace(member: Member, signal: 'SIGKILL' | 'SIGTERM'): Promise<void> {
    await member.end(signal);
    member.start();
  }

  #wires(whom: number) {
    const { front, workers } = this.#system;
    const all = [...(front === null ? [] : [front]), ...workers];
    return all[Math.floor(whom * all.length)]?.wires ?? [];
  }
}
