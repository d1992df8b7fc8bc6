/** What is stored of jobs; whoever has the engine verifies and exports it. */
import { Catalogue } from '../../engine/checkpoint/catalogue.ts';
import { front } from '../front.ts';
import { checkpoints } from '../jobs/checkpoints.ts';

export default front({
  checkpoints: (options) => new Catalogue(options),
  add: (registry, options) => {
    if (options.checkpoints !== undefined) checkpoints(registry, options.checkpoints);
  },
});
