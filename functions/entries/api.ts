/** Everything in one function. */
import { Catalogue } from '../../engine/checkpoint/catalogue.ts';
import { Webhooks } from '../../engine/webhook/webhooks.ts';
import { addAll } from '../app.ts';
import { front } from '../front.ts';
import { openBatches } from '../open-batches.ts';

export default front({
  add: addAll,
  storage: openBatches,
  checkpoints: (options) => new Catalogue(options),
  webhooks: (options) => new Webhooks({ ...options, allowLoopback: false }),
});
