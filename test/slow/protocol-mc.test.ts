/** The rows of docs/PROTOCOL.md that take longer than test/unit/protocol-mc.test.ts has time for. */
import { describe, expect, test } from 'vitest';

import { checked, hasPython, protocolRows, suiteOf } from '../helpers/protocol.ts';

const TIMEOUT_MS = 900_000;

describe.skipIf(!hasPython())('the checker', () => {
  test.each(protocolRows().filter((row) => suiteOf(row) === 'slow'))(
    '$command: $verdict',
    async (row) => {
      const found = await checked([row.command], TIMEOUT_MS);
      expect(found.get(row.command)).toEqual(row);
    },
    TIMEOUT_MS,
  );
});
