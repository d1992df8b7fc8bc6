/** The events of one job as they were made, for any number of readers: each reads from where it is, and holds nothing between two reads. */
import type { LogEvent } from './event-log.ts';

/** Events of a block: those of the last, unfinished one are kept as they are. */
const BLOCK_EVENTS = 1_024;
/** Of one job: 22 bytes and its text each. Whoever is further behind makes what it misses from the job's tokens again. */
const EVENTS_MAX = 1 << 20;

type TokenEvent = Extract<LogEvent, { readonly kind: 'token' }>;

/** A block that is full never changes. A row for each event. */
interface Block {
  readonly chains: Uint16Array;
  readonly indexes: Uint32Array;
  readonly tokens: Int32Array;
  /** Where the reasoning and then the content of each end in `text`. */
  readonly ends: Uint32Array;
  readonly text: string;
  /** What a row has no room for: ends of chains, and tokens with more than their text. */
  readonly whole: ReadonlyMap<number, LogEvent>;
}

/**
 * @example
 * tape.append(event);
 * for (const event of tape.read(next, 64)) …
 */
export class EventTape {
  readonly #eventsMax: number;
  #blocks: Block[] = [];
  #open: LogEvent[] = [];
  /** Of the first block that is kept. */
  #first = 0;

  constructor(eventsMax = EVENTS_MAX) {
    this.#eventsMax = eventsMax;
  }

  /** The number of the oldest event that it has. */
  get first(): number {
    return this.#first;
  }

  /** The number that the next event will have. */
  get next(): number {
    return this.#first + this.#blocks.length * BLOCK_EVENTS + this.#open.length;
  }

  /** @param event with the number `next`. */
  append(event: LogEvent): void {
    this.#open.push(event);
    if (this.#open.length < BLOCK_EVENTS) return;
    this.#blocks.push(blockOf(this.#open));
    this.#open = [];
    if (this.next - this.#first <= this.#eventsMax) return;
    this.#blocks.shift();
    this.#first += BLOCK_EVENTS;
  }

  /** At most `most` events, from number `from` on, which is not below `first`. */
  read(from: number, most: number): readonly LogEvent[] {
    const count = Math.max(0, Math.min(most, this.next - from));
    return Array.from({ length: count }, (_, i) => this.#event(from + i));
  }

  #event(seq: number): LogEvent {
    const at = seq - this.#first;
    const block = this.#blocks[Math.floor(at / BLOCK_EVENTS)];
    return block === undefined ? (this.#open[at % BLOCK_EVENTS] as LogEvent) : eventOf(block, at % BLOCK_EVENTS, seq);
  }
}

function blockOf(events: readonly LogEvent[]): Block {
  const rows = events.length;
  const [chains, indexes, tokens, ends] = [new Uint16Array(rows), new Uint32Array(rows), new Int32Array(rows), new Uint32Array(2 * rows)];
  const whole = new Map<number, LogEvent>();
  let text = '';
  for (const [row, event] of events.entries()) {
    if (isPlain(event)) {
      chains[row] = event.chain;
      indexes[row] = event.index;
      tokens[row] = event.token;
      ends[2 * row] = text.length + event.delta.reasoning.length;
      text += event.delta.reasoning + event.delta.content;
    } else {
      whole.set(row, event);
      ends[2 * row] = text.length;
    }
    ends[2 * row + 1] = text.length;
  }
  return { chains, indexes, tokens, ends, text, whole };
}

const PLAIN = 6;

function isPlain(event: LogEvent): event is TokenEvent {
  return event.kind === 'token' && Object.keys(event).length === PLAIN;
}

function eventOf({ chains, indexes, tokens, ends, text, whole }: Block, row: number, seq: number): LogEvent {
  const kept = whole.get(row);
  if (kept !== undefined) return kept;
  const start = row === 0 ? 0 : (ends[2 * row - 1] ?? 0);
  const [middle = 0, end = 0] = [ends[2 * row], ends[2 * row + 1]];
  const delta = { reasoning: text.slice(start, middle), content: text.slice(middle, end) };
  return { kind: 'token', seq, chain: chains[row] ?? 0, index: indexes[row] ?? 0, token: tokens[row] ?? 0, delta };
}
