/** Whose turn it is among messages that wait: interactive ones first, then the tenant that has least, and then who was served longest ago. */
import { priorityOf } from '../ports/queue.ts';
import type { Entry } from './queue-local.ts';

/** By when they came to be visible; those of one process in the order in which it sent them. */
export function byAge(a: Entry, b: Entry): number {
  return a.visibleMs - b.visibleMs || (a.id < b.id ? -1 : 1);
}

/** Of tenants remembered; one that is forgotten counts as never served. */
const TENANTS_MAX = 10_000;

export class Turns {
  /** When each was served last, as a count; last in the map is who was served last. */
  readonly #served = new Map<string, number>();
  #count = 0;

  /** One pass: a queue may be long. null: nothing waits. */
  next(waiting: Iterable<Entry>, inFlight: readonly Entry[]): Entry | null {
    const running = new Map<string, number>();
    for (const { message: { tenant } } of inFlight) running.set(tenant, (running.get(tenant) ?? 0) + 1);
    const oldest = { interactive: new Map<string, Entry>(), batch: new Map<string, Entry>() };
    for (const entry of waiting) {
      const priority = priorityOf(entry.message);
      if (priority === 'batch' && oldest.interactive.size > 0) continue;
      const ofClass = oldest[priority];
      const before = ofClass.get(entry.message.tenant);
      if (before === undefined || byAge(entry, before) < 0) ofClass.set(entry.message.tenant, entry);
    }
    const [first] = [...(oldest.interactive.size > 0 ? oldest.interactive : oldest.batch)]
      .sort(([a, first], [b, other]) => (running.get(a) ?? 0) - (running.get(b) ?? 0) || (this.#served.get(a) ?? 0) - (this.#served.get(b) ?? 0) || byAge(first, other));
    if (first === undefined) return null;
    const [tenant, entry] = first;
    this.#served.delete(tenant);
    this.#served.set(tenant, ++this.#count);
    if (this.#served.size > TENANTS_MAX) this.#served.delete(this.#served.keys().next().value ?? '');
    return entry;
  }
}
