/** Webhooks over a store. Not part of the app's own bundle: it needs what the engine needs. */
import { type WebhooksOptions, Webhooks } from '../engine/webhook/webhooks.ts';

/** @example createApp({ platform, webhooks: openWebhooks({ store, keys }), auth, log }) */
export function openWebhooks(options: Omit<WebhooksOptions, 'allowLoopback'> & { readonly allowLoopback?: boolean }): Webhooks {
  return new Webhooks({ allowLoopback: false, ...options });
}
