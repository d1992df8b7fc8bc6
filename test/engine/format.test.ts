import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, test, expect } from 'vitest';
import { openSession, type Session } from '../../engine/job/session.ts';
import { writeModel } from '../helpers/written-model.ts';
let dir: string; let session: Session;
beforeAll(() => { dir = mkdtempSync(path.join(tmpdir(), 'ruminate-format-')); writeModel(dir, 'scribe'); writeModel(dir, 'thinker', { thinks: true }); session = openSession(); });
afterAll(() => { session[Symbol.dispose](); rmSync(dir, { recursive: true, force: true }); });
test('x', async () => {
  for (const [m, format] of [['scribe', { kind: 'json_object' }], ['thinker', { kind: 'json_schema', schema: { type: 'object', properties: { a: { type: 'integer' }, b: { enum: ['x', 'y'] } }, required: ['a'], additionalProperties: false } }]] as const) {
    for (let seed = 1; seed < 3; seed++) {
      const t = performance.now();
      const r = await session.generate({ model: path.join(dir, m), prompt: 'hi', seed, format, logprobs: 2, budget: { length: 300, width: 1 } }, { threads: 1 });
      console.log(m, r.chains[0]?.finish_reason, r.chains[0]?.tokens.length, JSON.stringify(r.chains[0]?.text).slice(0, 300), (performance.now() - t).toFixed(0));
    }
  }
});
