/** What the jobs of a store that have begun and not ended are pinned to, from the store itself: markers, heads and manifests are in the clear. */
import { GetObjectCommand, ListObjectsV2Command, type S3Client } from '@aws-sdk/client-s3';

import type { Pinned } from './rollout.ts';

const AT_ONCE = 16;
const OBJECT_BYTES_MAX = 64 * 2 ** 20;

/** @param prefix of the platform in its bucket, without a slash at its end. @throws Error: a head or manifest cannot be read. */
export async function pinnedIn(client: S3Client, bucket: string, prefix: string): Promise<readonly Pinned[]> {
  const found = new Map<string, Pinned>();
  let batch: string[] = [];
  const flush = async () => {
    for (const pin of await Promise.all(batch.map((key) => pinOf(client, bucket, prefix, key)))) {
      if (pin === null) continue;
      const name = `${pin.numericsId} ${pin.layoutId} ${pin.modelId} ${pin.format}`;
      found.set(name, { ...pin, jobs: (found.get(name)?.jobs ?? 0) + 1 });
    }
    batch = [];
  };
  for await (const key of keysUnder(client, bucket, `${prefix}/live/`)) {
    batch.push(key);
    if (batch.length === AT_ONCE) await flush();
  }
  await flush();
  return [...found.values()];
}

/** null: not begun, or ended since. */
async function pinOf(client: S3Client, bucket: string, prefix: string, marker: string): Promise<Pinned | null> {
  const [tenant = '', job = ''] = marker.split('/').slice(-2);
  const at = `${prefix}/kv/${tenant}/${job}`;
  const head = (await jsonAt(client, bucket, `${at}/HEAD`)) as { readonly state?: string; readonly manifest?: { readonly name: string } | null } | null;
  if (head === null || !['running', 'parked'].includes(head.state ?? '') || head.manifest == null) return null;
  const manifest = (await jsonAt(client, bucket, `${at}/${head.manifest.name}`)) as Record<string, unknown> | null;
  // Replaced between the two reads: whoever did that is alive, and the next look sees it.
  if (manifest === null) return null;
  const { numericsId, layoutId, modelId, format } = manifest;
  if (typeof numericsId !== 'string' || typeof layoutId !== 'string' || typeof modelId !== 'string' || typeof format !== 'string') throw new Error(`${at}/${head.manifest.name} says of no engine that it is its own.`);
  return { numericsId, layoutId, modelId, format, jobs: 1 };
}

async function* keysUnder(client: S3Client, Bucket: string, Prefix: string): AsyncIterable<string> {
  let ContinuationToken: string | undefined;
  do {
    const page = await client.send(new ListObjectsV2Command({ Bucket, Prefix, ContinuationToken }));
    for (const { Key } of page.Contents ?? []) if (Key !== undefined) yield Key;
    ContinuationToken = page.NextContinuationToken;
  } while (ContinuationToken !== undefined);
}

/** null: it is not there. */
async function jsonAt(client: S3Client, Bucket: string, Key: string): Promise<unknown> {
  try {
    const { Body, ContentLength = 0 } = await client.send(new GetObjectCommand({ Bucket, Key }));
    if (ContentLength > OBJECT_BYTES_MAX) throw new Error(`${Key} is too large to be ours.`);
    return JSON.parse((await Body?.transformToString()) ?? '');
  } catch (error) {
    if ((error as Error).name === 'NoSuchKey') return null;
    throw error;
  }
}
