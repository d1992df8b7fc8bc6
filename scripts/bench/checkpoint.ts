/** `npm run bench -- checkpoint`: what checkpoints cost and what they save. */
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { openStore } from '../../engine/adapters/store-url.ts';
import { openSession } from '../../engine/job/session.ts';
import type { ObjectStore } from '../../engine/ports/object-store.ts';
import { startVersitygw } from '../../test/helpers/versitygw.ts';
import { peerPath } from '../peers/build.mjs';
import { type Cut, cutOf } from './cuts.ts';
import { VARIANTS } from './jobs.ts';
import type { PlainAccess } from './transfers.ts';
import { type Resume, resumeOf, type Waiting, waitingOf } from './resumes.ts';
import { type Transfer, type TransferSize, transferOf } from './transfers.ts';

export interface CheckpointFigures {
  readonly cuts: readonly Cut[];
  readonly resumes: readonly Resume[];
  readonly waits: readonly Waiting[];
  readonly transfers: readonly Transfer[];
  /** What was left out, and why. */
  readonly skipped: readonly string[];
}

export interface CheckpointPlan {
  readonly cutTokens: readonly number[];
  readonly resumeTokens: readonly number[];
  readonly widths: readonly number[];
  readonly waitTokens: number;
  readonly rounds: number;
  readonly transfer: TransferSize;
}

/** With the prompt, and with what resumed jobs go on by, the longest fit the context of 1,024. */
export const FULL: CheckpointPlan = {
  cutTokens: [64, 128, 256, 512, 960],
  resumeTokens: [64, 128, 256, 512, 752],
  widths: [1, 8],
  waitTokens: 896,
  rounds: 3,
  transfer: { chains: 48, tokens: 896, threads: 1, rounds: 9 },
};
export const QUICK: CheckpointPlan = {
  cutTokens: [64, 256],
  resumeTokens: [64, 256],
  widths: [1, 2],
  waitTokens: 256,
  rounds: 1,
  transfer: { chains: 4, tokens: 200, threads: 1, rounds: 1 },
};

interface Place {
  readonly name: string;
  readonly open: () => Promise<ObjectStore>;
  readonly plain: PlainAccess | null;
}

/** @param say what is going on, for whoever waits. */
export async function measureCheckpoints(plan: CheckpointPlan, say: (line: string) => void, signal: AbortSignal): Promise<CheckpointFigures> {
  const folder = mkdtempSync(path.join(tmpdir(), 'ruminate-bench-'));
  const binary = peerPath('versitygw');
  await using peer = existsSync(binary) ? await startVersitygw(binary) : null;
  try {
    const places: Place[] = [{ name: 'filesystem', open: () => openStore(folder), plain: null }];
    if (peer !== null) {
      places.push({ name: 'versitygw', open: async () => peer.store({ prefix: 'bench' }), plain: { client: peer.client, bucket: peer.bucket, prefix: 'bench' } });
    }
    const skipped = peer === null ? ['versitygw: `node scripts/peers/build.mjs versitygw` builds it'] : [];
    return { ...(await measureIn(places, plan, say, signal)), skipped };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function measureIn(places: readonly Place[], plan: CheckpointPlan, say: (line: string) => void, signal: AbortSignal): Promise<Omit<CheckpointFigures, 'skipped'>> {
  const { cutTokens, resumeTokens, widths, waitTokens, rounds, transfer } = plan;
  const [cuts, resumes, waits, transfers]: [Cut[], Resume[], Waiting[], Transfer[]] = [[], [], [], []];
  {
    using session = openSession();
    say('bytes of a cut');
    for (const variant of VARIANTS) for (const width of widths) for (const tokens of cutTokens) cuts.push(await cutOf(session, variant, tokens, width, signal));
    for (const place of places) {
      say(`transfers: ${place.name}`);
      transfers.push(await transferOf(session, { ...place, store: await place.open() }, transfer, signal));
    }
  }
  for (const variant of VARIANTS) {
    for (const width of widths) {
      const [place] = places;
      if (place === undefined) continue;
      say(`waiting for saves: ${variant.name}, width ${width}`);
      waits.push(await waitingOf(place.open, variant, waitTokens, width, rounds, signal));
    }
  }
  for (const place of places) {
    for (const variant of VARIANTS) {
      for (const width of widths) {
        for (const tokens of resumeTokens) {
          say(`resuming: ${place.name}, ${variant.name}, ${width} x ${tokens} tokens`);
          resumes.push(await resumeOf(place.name, place.open, variant, tokens, width, rounds, signal));
        }
      }
    }
  }
  return { cuts, resumes, waits, transfers };
}
