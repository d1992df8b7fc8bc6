import { front } from '../front.ts';
import { openWebhooks } from '../open-webhooks.ts';
import { webhooks } from '../webhooks/webhooks.ts';

/** Where tenants are told that something has ended. */
export default front({
  webhooks: openWebhooks,
  add: (registry, { webhooks: store }) => {
    if (store !== undefined) webhooks(registry, store);
  },
});
