/** Everything in one function. */
import { addAll } from '../app.ts';
import { front } from '../front.ts';
import { openBatches } from '../open-batches.ts';

export default front({ add: addAll, storage: openBatches });
