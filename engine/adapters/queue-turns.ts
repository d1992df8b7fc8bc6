/** Whose turn it is among messages that wait: interactive ones first, then the tenant that has least, and then who was served longest ago. */
import { priorityOf } from '../ports/queue.ts';
import type { Entry } from './queue-local.ts';

/** Of tenants remembered; one that is forgotten counts as never served. */
const TENANTS_MAX = 10_000;

export class Turns {
  /** When each was served last, as a count; last in the map is who was served last. */
  readonly #served = new Map<string, number>();
  #count = 0;

  /** @param waiting oldest first. null: nothing waits. */
  next(waiting: readonly Entry[], inFlight: readonly Entry[]): Entry | null {
    const interactive = waiting.filter(({ message }) => priorityOf(message) === 'interactive');
    const running = new Map<string, number>();
    for (const { message: { tenant } } of inFlight) running.set(tenant, (running.get(tenant) ?? 0) + 1);
    const oldest = new Map<string, Entry>();
    for (const entry of interactive.length > 0 ? interactive : waiting) if (!oldest.has(entry.message.tenant)) oldest.set(entry.message.tenant, entry);
    const [first] = [...oldest].sort(([a], [b]) => (running.get(a) ?? 0) - (running.get(b) ?? 0) || (this.#served.get(a) ?? 0) - (this.#served.get(b) ?? 0));
    if (first === undefined) return null;
    const [tenant, entry] = first;
    this.#served.delete(tenant);
    this.#served.set(tenant, ++this.#count);
    if (this.#served.size > TENANTS_MAX) this.#served.delete(this.#served.keys().next().value ?? '');
    return entry;
  }
}
