/** A message as text: what a queue that is not ours alone may hold is parsed with bounds. */
import { isJobName, isNamePart } from '../kv/names.ts';
import type { SliceMessage } from '../ports/queue.ts';

const BYTES_MAX = 1_024;
const FIELDS = ['v', 'tenant', 'job', 'slice', 'priority', 'expiresMs', 'failures', 'traceparent'];
const TRACEPARENT = /^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/;

export function formatMessage({ v, tenant, job, slice, priority, expiresMs, failures, traceparent }: SliceMessage): string {
  return JSON.stringify({ v, tenant, job, slice, priority, expiresMs, failures, traceparent });
}

/** null: none of ours, or of a later version. */
export function parseMessage(text: string): SliceMessage | null {
  if (text.length > BYTES_MAX) return null;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return null;
  }
  if (typeof value !== 'object' || value === null || !Object.keys(value).every((field) => FIELDS.includes(field))) return null;
  const { v, tenant, job, slice, priority, expiresMs, failures, traceparent } = value as Record<string, unknown>;
  const known = v === 1 && isName(tenant) && typeof job === 'string' && isJobName(job) && isCount(slice) && (priority === undefined || priority === 'batch') && (expiresMs === undefined || isCount(expiresMs))
    && (failures === undefined || isCount(failures)) && (traceparent === undefined || (typeof traceparent === 'string' && TRACEPARENT.test(traceparent)));
  return known ? (value as SliceMessage) : null;
}

function isName(value: unknown): value is string {
  return typeof value === 'string' && isNamePart(value);
}

function isCount(value: unknown): boolean {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}
