/** What a receiver is sent: what has ended and where to read it, so that a webhook that falls into wrong hands tells nothing. */
import { familyOf } from './events.ts';
import type { DeliveryRecord } from './records.ts';

/** As OpenAI's, with what Standard Webhooks ask for beside it. The same bytes at every attempt of senders that have the same `base`. @param base `https://host`; null: `url` is a path. */
export function payloadOf({ id, type, subject, createdMs }: DeliveryRecord, base: string | null): string {
  const family = familyOf(type);
  const name = family === 'response' ? `resp_${subject}` : subject;
  const path = `/v1/${family === 'response' ? 'responses' : family === 'batch' ? 'batches' : 'jobs'}/${name}`;
  return JSON.stringify({
    id,
    object: 'event',
    type,
    created_at: Math.floor(createdMs / 1_000),
    timestamp: new Date(createdMs).toISOString(),
    data: { id: name, object: family, url: base === null ? path : `${base.replace(/\/+$/, '')}${path}` },
  });
}
