/** What a store would hold of one run, in memory: saves in, the plan of a restore out. */
import { createHash } from 'node:crypto';

import type { NativeRun, RestoreOptions, RunOptions, SavedObject, Seal } from '../../engine/runtime/native.ts';

const SEAL: Seal = { digestKey: null, dataKey: null, context: 'acme\0sums' };
/** Of docs/CHECKPOINT.md: before the first frame, and after the index. */
const HEADER_BYTES = 64;
const TRAILER_BYTES = 64;

interface Chain {
  readonly segments: readonly number[];
  readonly tails: readonly number[];
}

const NOTHING: Chain = { segments: [], tails: [] };

/** Immutable: every cut of a run keeps the vault as it was then. */
export class Vault {
  readonly objects: readonly SavedObject[];
  readonly #chains: readonly Chain[];
  readonly #prompt: Chain;
  readonly #journals: readonly number[];

  private constructor(objects: readonly SavedObject[], chains: readonly Chain[], prompt: Chain, journals: readonly number[]) {
    this.objects = objects;
    this.#chains = chains;
    this.#prompt = prompt;
    this.#journals = journals;
  }

  static empty(width: number): Vault {
    return new Vault([], Array.from({ length: width }, () => NOTHING), NOTHING, []);
  }

  /** What the next save wrote besides. */
  with(saved: readonly SavedObject[]): Vault {
    const copy = ({ segments, tails }: Chain) => ({ segments: [...segments], tails: [...tails] });
    const [chains, prompt, journals] = [this.#chains.map(copy), copy(this.#prompt), [...this.#journals]];
    saved.forEach(({ kind, chain }, i) => {
      const index = this.objects.length + i;
      if (kind === 'journal') journals.push(index);
      else if (chain >= 0) chains[chain]?.[kind === 'segment' ? 'segments' : 'tails'].push(index);
      else if (kind === 'tail') prompt.tails.push(index);
      else for (const { segments } of [prompt, ...chains]) segments.push(index);
    });
    return new Vault([...this.objects, ...saved], chains, prompt, journals);
  }

  /** @param sources chains of the run that is made, by their index here; default: all. */
  plan(run: RunOptions, sources = this.#chains.map((_, i) => i)): RestoreOptions {
    return {
      run,
      objects: this.objects.map(({ bytes, digest }) => {
        // In two chunks, as from a network.
        const half = bytes.byteLength >> 1;
        return { chunks: [bytes.subarray(0, half), bytes.subarray(half)], bytes: bytes.byteLength, digest, seal: 0 };
      }),
      seals: [SEAL],
      checkDigests: true,
      replay: false,
      ownJournal: true,
      chains: sources.map((source) => {
        const { segments = [], tails = [] } = this.#chains[source] ?? {};
        return { source, tokens: -1, reopen: false, segments, tail: tails.at(-1) ?? null };
      }),
      promptSegments: this.#prompt.segments,
      promptTail: this.#prompt.tails.at(-1) ?? null,
      prefix: null,
      journals: this.#journals,
    };
  }
}

export async function save(run: NativeRun, n: number): Promise<readonly SavedObject[]> {
  return (await run.save({ ...SEAL, delta: true, epoch: 1, n, codec: 'raw' })).objects;
}

/** What an object holds: K, V, logits, tokens, counters. Its nonce is another each time, and with it header and digest. */
export function contentsOf(objects: readonly SavedObject[]): readonly string[] {
  return objects.map(({ kind, chain, generated, bytes }) =>
    `${kind} ${chain} ${generated} ${createHash('sha256').update(bytes.subarray(HEADER_BYTES, bytes.byteLength - TRAILER_BYTES)).digest('hex')}`);
}
