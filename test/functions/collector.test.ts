/** The collector as a scheduled function: what no head needs goes, whatever an invocation had time for. */
import { describe, expect, test } from 'vitest';

import { MemoryStore } from '../../engine/adapters/memory.ts';
import { utf8Of } from '../../engine/core/bytes.ts';
import { createJob } from '../../engine/kv/create.ts';
import { endJob } from '../../engine/kv/end.ts';
import { type Collection, collectorFunction } from '../../functions/collector.ts';
import { SPEC } from '../kv/support.ts';

const log = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };
const AMPLE = { getRemainingTimeInMillis: () => 900_000 };
/** Of the generation before the first fence, and named by no head: what a killed worker leaves. */
const ORPHAN = 's/0/0-0-0-0011223344556677.seg';

async function withOrphan(store: MemoryStore, tenant: string, job: string): Promise<string> {
  await createJob(store, { tenant, job }, SPEC);
  const key = `kv/${tenant}/${job}/${ORPHAN}`;
  await store.put(key, [utf8Of('left behind')]);
  return key;
}

const collect = async (store: MemoryStore, context = AMPLE): Promise<Collection> => await collectorFunction({ store, log })({}, context);

describe('a scheduled collection', () => {
  test('deletes of every tenant\'s jobs what their heads do not need, and nothing else', async () => {
    const store = new MemoryStore();
    const orphans = [await withOrphan(store, 'acme', 'a'), await withOrphan(store, 'other', 'b')];
    expect(await collect(store)).toMatchObject({ jobs: 2, objects: 2, complete: true });
    for (const key of orphans) expect(await store.get(key, { bytesMax: 1_000 })).toBeNull();
    expect(await store.get('kv/acme/a/HEAD', { bytesMax: 1_000 })).not.toBeNull();
    expect(await collect(store)).toMatchObject({ jobs: 2, objects: 0, complete: true });
  });

  test('a job that cannot be read keeps no other from being collected', async () => {
    const store = new MemoryStore();
    await withOrphan(store, 'acme', 'a');
    await store.put('kv/acme/a/HEAD', [utf8Of('{')]);
    const orphan = await withOrphan(store, 'acme', 'b');
    expect(await collect(store)).toMatchObject({ jobs: 2, objects: 1, complete: true });
    expect(await store.get(orphan, { bytesMax: 1_000 })).toBeNull();
  });

  test('goes on the next time with what it had no time for', async () => {
    const store = new MemoryStore();
    const orphan = await withOrphan(store, 'acme', 'a');
    expect(await collect(store, { getRemainingTimeInMillis: () => 0 })).toMatchObject({ jobs: 0, complete: false });
    expect(await store.get(orphan, { bytesMax: 1_000 })).not.toBeNull();
    expect(await collect(store)).toMatchObject({ jobs: 1, objects: 1, complete: true });
  });

  test('writes nothing to a job that has ended and was collected since', async () => {
    const store = new MemoryStore();
    await withOrphan(store, 'acme', 'a');
    await endJob(store, { tenant: 'acme', job: 'a' }, 'cancelled');
    await collect(store);
    const head = await store.get('kv/acme/a/HEAD', { bytesMax: 1_000 });
    await collect(store);
    expect((await store.get('kv/acme/a/HEAD', { bytesMax: 1_000 }))?.etag).toBe(head?.etag);
  });
});
