/** What the store keeps of webhooks: small objects that are written once, as those of files and batches are (control/records.ts). */
import { z } from 'zod';

import { blobSchema } from '../control/records.ts';
import { LIMITS } from '../core/limits.ts';
import { tenantPrefix } from '../kv/names.ts';
import { SEND_FAULTS } from '../ports/sender.ts';

const timeMs = z.int().min(0);
const of = { tenant: z.string(), id: z.string() };

/** Where a tenant wants to be told, and what of. */
export const hookRecord = z.strictObject({
  kind: z.literal('hook'), ...of, createdMs: timeMs, url: z.string().max(LIMITS.WEBHOOK_URL_CHARS_MAX), events: z.array(z.string()).min(1),
});

/** Of a hook. The newest signs; the one before it too, for a day. */
export const secretRecord = z.strictObject({ kind: z.literal('secret'), ...of, createdMs: timeMs, blob: blobSchema });

/** Something that a hook is to be told: one for each thing that ended, however often and by however many it is recorded. */
export const deliveryRecord = z.strictObject({ kind: z.literal('delivery'), ...of, hook: z.string(), type: z.string(), subject: z.string(), createdMs: timeMs });

/** From here on it is tried anew, though it had been delivered or given up. */
export const roundRecord = z.strictObject({ kind: z.literal('round'), ...of, round: z.int().min(1), atMs: timeMs });

/** Written before it is made: one of several instances makes it. `nonce`: which. */
export const attemptRecord = z.strictObject({ kind: z.literal('attempt'), ...of, round: z.int().min(0), n: z.int().min(0), atMs: timeMs, nonce: z.string() });

/** How an attempt came out; one without died with its instance. */
export const outcomeRecord = z.strictObject({
  kind: z.literal('outcome'), ...of, round: z.int().min(0), n: z.int().min(0), atMs: timeMs, status: z.int().nullable(), fault: z.enum(SEND_FAULTS).nullable(),
});

export type HookRecord = Readonly<z.infer<typeof hookRecord>>;
export type SecretRecord = Readonly<z.infer<typeof secretRecord>>;
export type DeliveryRecord = Readonly<z.infer<typeof deliveryRecord>>;
export type AttemptRecord = Readonly<z.infer<typeof attemptRecord>>;
export type OutcomeRecord = Readonly<z.infer<typeof outcomeRecord>>;

/** Which delivery. */
export interface DeliveryKey {
  readonly tenant: string;
  readonly hook: string;
  readonly id: string;
}

export const HOOK_ID = /^we_[0-9A-HJKMNP-TV-Z]{26}$/;
export const DELIVERY_ID = /^msg_[0-9A-HJKMNP-TV-Z]{26}$/;

/** Of all hooks of a tenant: `<id>/hook.json`, `<id>/secret-<ULID>.json`, and the pieces of secrets. */
export function hooksFolder(tenant: string): string {
  // Checks the name.
  tenantPrefix(tenant);
  return `hooks/${tenant}/`;
}

/** Of all deliveries of a hook: `<id>/delivery.json`, `<id>/round-<r>.json`, `<id>/<r>-<n>.json`, `<id>/<r>-<n>-outcome.json`. */
export function deliveriesFolder(tenant: string, hook: string): string {
  tenantPrefix(tenant);
  return `deliveries/${tenant}/${hook}/`;
}

export function deliveryFolder({ tenant, hook, id }: DeliveryKey): string {
  return `${deliveriesFolder(tenant, hook)}${id}/`;
}

const DUE = 'due/';
const DIGITS = 15;

export const DUE_PREFIX = DUE;

/** A hint that something is to be done for a delivery, in order of when. Several of one delivery are as good as one. */
export function dueKey(atMs: number, { tenant, hook, id }: DeliveryKey): string {
  return `${DUE}${Math.max(0, Math.floor(atMs)).toString().padStart(DIGITS, '0')}/${tenant}/${hook}/${id}`;
}

/** null: no key of ours. */
export function parseDueKey(key: string): { readonly atMs: number; readonly delivery: DeliveryKey } | null {
  const [digits = '', tenant = '', hook = '', id = '', ...rest] = key.slice(DUE.length).split('/');
  if (rest.length > 0 || !/^\d{15}$/.test(digits) || !HOOK_ID.test(hook) || !DELIVERY_ID.test(id)) return null;
  return { atMs: Number(digits), delivery: { tenant, hook, id } };
}
