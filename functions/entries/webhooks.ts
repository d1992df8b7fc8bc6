/** Who is told what; whoever runs jobs delivers it. */
import { Webhooks } from '../../engine/webhook/webhooks.ts';
import { front } from '../front.ts';
import { webhooks } from '../webhooks/webhooks.ts';

export default front({
  webhooks: (options) => new Webhooks({ ...options, allowLoopback: false }),
  add: (registry, options) => {
    if (options.webhooks !== undefined) webhooks(registry, options.webhooks);
  },
});
