/** Export and import between a folder and S3, on versitygw where its binary is cached. */
import { createReadStream, createWriteStream, existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, expect, test } from 'vitest';

import { openFilesystemStore } from '../../engine/adapters/filesystem.ts';
import { exportJob } from '../../engine/checkpoint/export.ts';
import { importJob } from '../../engine/checkpoint/import.ts';
import { surveyJobs } from '../../engine/checkpoint/survey.ts';
import { isRight, verifyJob } from '../../engine/checkpoint/verify.ts';
import type { ObjectStore } from '../../engine/ports/object-store.ts';
import { peerPath } from '../../scripts/peers/build.mjs';
import { manifestIn, resultOf, resumed, storedJob, WHERE } from '../helpers/stored-job.ts';
import { startVersitygw } from '../helpers/versitygw.ts';

const binary = peerPath('versitygw');
const there = existsSync(binary);
if (!there) process.stdout.write('skipped: import into S3: `node scripts/peers/build.mjs versitygw` builds the server\n');

describe.skipIf(!there)('between a folder and S3', () => {
  test('a parked job goes there and back, and then ends as one that was never moved', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'ruminate-move-'));
    await using peer = await startVersitygw(binary);
    try {
      const home = await openFilesystemStore(path.join(folder, 'home'));
      const away = peer.store();
      const back = await openFilesystemStore(path.join(folder, 'back'));
      await storedJob(home);
      await moved(home, away, path.join(folder, 'there.tar'));
      await moved(away, back, path.join(folder, 'back.tar'));
      const digestsIn = async (store: ObjectStore) => (await manifestIn(store)).objects.map(({ digest }) => digest);
      expect(await digestsIn(away)).toEqual(await digestsIn(home));
      expect(await digestsIn(back)).toEqual(await digestsIn(home));
      for (const store of [away, back]) {
        expect(isRight(await verifyJob(store, WHERE, { keys: null }))).toBe(true);
        for await (const row of surveyJobs(store, WHERE.tenant)) expect(Date.now() - (row.writtenAtMs ?? 0)).toBeLessThan(3_600_000);
      }
      const ended = resultOf(await resumed(home));
      expect(resultOf(await resumed(away))).toEqual(ended);
      expect(resultOf(await resumed(back))).toEqual(ended);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }, 120_000);
});

async function moved(from: ObjectStore, to: ObjectStore, file: string): Promise<void> {
  await exportJob(from, WHERE, createWriteStream(file), { keys: null });
  await importJob(to, WHERE.tenant, () => createReadStream(file), { keys: null });
}
