/** The invariants of protocol_traces.md as code: asked after every step of a simulation, of the bytes in the store. */
import type { Operation } from '../../engine/adapters/memory-faults.ts';

/** What is committed, as whoever would restore now finds it. */
export interface Committed {
  /** Changes with every commit and take, and with nothing else. */
  readonly write: string;
  readonly version: number;
  readonly epoch: number;
  readonly state: string;
  /** Absolute keys of everything that is named, with or without a step. */
  readonly names: readonly string[];
  /** Absolute keys of the steps, in order. */
  readonly steps: readonly string[];
  /** Tokens that the job is billed for by its manifest, and what the manifest says was done. */
  readonly billed: number;
  readonly manifested: number;
}

type Objects = ReadonlyMap<string, Uint8Array>;
export type View = (objects: Objects) => Committed | null;

export type Invariant = 'fencing' | 'dangling' | 'gc' | 'once' | 'progress' | 'acked' | 'restore' | 'final' | 'billed' | 'born' | 'stuck';

export class Watch {
  readonly violations: { readonly invariant: Invariant; readonly what: string }[] = [];
  readonly #view: View;
  #taken = 0;
  readonly #acked = new Set<string>();
  #last: Committed | null = null;
  #lastSteps = 0;

  constructor(view: View) {
    this.#view = view;
  }

  /** An owner has got this epoch: from now on no older one may commit. */
  took(epoch: number): void {
    this.#taken = Math.max(this.#taken, epoch);
  }

  /** An owner believes that these objects are committed. They stay so: nobody here leaves any out again. */
  acked(names: readonly string[]): void {
    for (const name of names) this.#acked.add(name);
    if (this.#last !== null) this.#checkAcked(this.#last);
  }

  report(invariant: Invariant, what: string): void {
    this.violations.push({ invariant, what });
  }

  observe(objects: Objects, { kind, actor }: Pick<Operation, 'kind' | 'actor'>): void {
    const [now, last] = [this.#view(objects), this.#last];
    if (now === null) return last === null ? undefined : this.report('dangling', 'what was committed cannot be found');
    const missing = now.names.filter((name) => !objects.has(name));
    if (missing.length > 0) this.report(kind === 'delete' ? 'gc' : 'dangling', `after ${actor}'s ${kind}: ${missing.join(', ')} is named and not there`);
    const steps = now.steps.map((key) => Number(Buffer.from(objects.get(key) ?? []).toString().split(' ')[1]));
    if (missing.length === 0 && steps.some((step, i) => step !== i)) this.report('once', `the steps are ${steps.join(' ')}`);
    if (now.billed !== now.manifested) this.report('billed', `${now.billed} tokens for ${now.manifested} steps`);
    if (now.state !== 'erased') {
      if (steps.length < this.#lastSteps) this.report('progress', `from ${this.#lastSteps} steps to ${steps.length}`);
      this.#checkAcked(now);
    }
    if (last !== null && now.write !== last.write && now.epoch < this.#taken) this.report('fencing', `epoch ${now.epoch} wrote after ${this.#taken} was taken`);
    if (last !== null && (now.version < last.version || now.epoch < last.epoch)) this.report('fencing', 'version or epoch went back');
    if (last !== null && TERMINAL.has(last.state) && now.state !== last.state && now.state !== 'erased') this.report('final', `${last.state} became ${now.state}`);
    this.#last = now;
    this.#lastSteps = steps.length;
  }

  #checkAcked({ state, steps }: Committed): void {
    const lost = [...this.#acked].filter((name) => !steps.includes(name));
    if (lost.length > 0 && state !== 'erased') this.report('acked', `${lost.join(', ')} was acknowledged and is not committed`);
  }

  /** As of the last step. */
  get last(): Committed | null {
    return this.#last;
  }
}

const TERMINAL: ReadonlySet<string> = new Set(['done', 'incomplete', 'failed', 'cancelled', 'expired', 'poisoned', 'erased']);

/** What a head names, without the parsers of the engine: they are under test. */
export function headView(prefix: string): View {
  return (objects) => {
    const head = json(objects.get(`${prefix}HEAD`)) as RawHead | null;
    if (head === null) return null;
    const manifest = head.manifest === null ? null : (json(objects.get(prefix + head.manifest.name)) as RawManifest | null);
    const listed = (manifest?.journal ?? []).map((i) => manifest?.objects[i]?.name ?? '?');
    const steps = [...listed, ...head.journal.map(({ name }) => name)].map((name) => prefix + name);
    const objectsOf = (manifest?.objects ?? []).map(({ name, pack }) => prefix + (pack?.name ?? name));
    const names = [...new Set([...steps, ...objectsOf]), ...(head.manifest === null ? [] : [prefix + head.manifest.name]), ...(head.state === 'erased' ? [] : [`${prefix}spec-${head.spec}.json`])];
    return {
      write: head.writeNonce, version: head.version, epoch: head.epoch, state: head.state, names, steps,
      billed: manifest?.step ?? 0, manifested: listed.length,
    };
  };
}

interface RawHead {
  readonly version: number;
  readonly epoch: number;
  readonly writeNonce: string;
  readonly state: string;
  readonly spec: string;
  readonly manifest: { readonly name: string } | null;
  readonly journal: readonly { readonly name: string }[];
}

interface RawManifest {
  readonly step: number;
  readonly objects: readonly { readonly name: string; readonly pack?: { readonly name: string } }[];
  readonly journal: readonly number[];
}

function json(bytes: Uint8Array | undefined): unknown {
  return bytes === undefined ? null : JSON.parse(Buffer.from(bytes).toString());
}
