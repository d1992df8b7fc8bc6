import { front } from '../front.ts';
import { openBatches } from '../open-batches.ts';
import { batches } from '../openai/batches.ts';
import { files } from '../openai/files.ts';

/** Files, and batches of them. */
export default front({
  storage: openBatches,
  add: (registry, { storage }) => {
    if (storage === undefined) return;
    files(registry, storage.files);
    batches(registry, storage.batches);
  },
});
