/** The rule of a rollout and of its way back: no parked job is stranded, and none goes on with other bits unasked. */
import { describe, expect, test } from 'vitest';

import { type Identity, mayShareQueue, type Pinned, rolloutOf, sentenceOf } from '../deploy/rollout.ts';

const N: Identity = { numericsId: 'cpu-exact/1', layoutId: 'f32/64', modelIds: ['countdown', 'countdown@cr8'], formats: ['dmskv/1'] };
const pin = (changes: Partial<Pinned> = {}): Pinned => ({ numericsId: N.numericsId, layoutId: N.layoutId, modelId: 'countdown', format: 'dmskv/1', jobs: 1, ...changes });

describe('workers are exchanged', () => {
  test('at once where nothing has begun, whatever changes', () => {
    expect(rolloutOf({ numericsId: 'other', layoutId: 'other', modelIds: [], formats: [] }, [])).toEqual({ kind: 'roll' });
  });

  test('at once where engines share a numericsId, a layout and the models of what is parked', () => {
    expect(rolloutOf({ ...N, modelIds: [...N.modelIds, 'new'] }, [pin({ jobs: 40 }), pin({ modelId: 'countdown@cr8', jobs: 2 })])).toEqual({ kind: 'roll' });
  });

  test.each([
    ['another numericsId', { ...N, numericsId: 'cpu-exact/2' }, { stranded: 0, changed: 3 }],
    ['another layout', { ...N, layoutId: 'bf16/64' }, { stranded: 3, changed: 0 }],
    ['an engine that does not read what they write', { ...N, formats: ['dmskv/0'] }, { stranded: 3, changed: 0 }],
    ['a model that is not there any more', { ...N, modelIds: ['countdown@cr8'] }, { stranded: 3, changed: 0 }],
    ['both: what cannot go on is not said to go on otherwise', { numericsId: 'x', layoutId: 'y', modelIds: [], formats: [] }, { stranded: 3, changed: 0 }],
  ])('after those that are there have finished, with %s', (_, to, expected) => {
    expect(rolloutOf(to, [pin({ jobs: 3 })])).toEqual({ kind: 'drain', ...expected });
  });

  test('back under the same rule: what the new ones have parked is theirs to finish', () => {
    const next: Identity = { ...N, numericsId: 'cpu-exact/2' };
    expect(rolloutOf(next, [])).toEqual({ kind: 'roll' });
    expect(rolloutOf(N, [pin({ numericsId: next.numericsId, jobs: 2 })])).toEqual({ kind: 'drain', stranded: 0, changed: 2 });
  });

  test('a job of either engine in whichever order: no sequence of rollouts strands one', () => {
    const engines: readonly Identity[] = [N, { ...N, numericsId: 'b' }, { ...N, layoutId: 'c' }, { ...N, modelIds: ['countdown'] }, { ...N, formats: ['dmskv/1', 'dmskv/2'] }];
    for (const from of engines) for (const to of engines) for (const modelId of from.modelIds) for (const format of from.formats) {
      const parked = pin({ numericsId: from.numericsId, layoutId: from.layoutId, modelId, format });
      const fits = parked.layoutId === to.layoutId && parked.numericsId === to.numericsId && to.modelIds.includes(modelId) && to.formats.includes(format);
      expect(rolloutOf(to, [parked]).kind).toBe(fits ? 'roll' : 'drain');
    }
  });
});

describe('a canary', () => {
  test('takes from the queue of the others only if each can go on with whatever the other parks', () => {
    expect(mayShareQueue(N, { ...N })).toBe(true);
    expect(mayShareQueue(N, { ...N, numericsId: 'b' })).toBe(false);
    expect(mayShareQueue(N, { ...N, layoutId: 'b' })).toBe(false);
    expect(mayShareQueue(N, { ...N, formats: [...N.formats, 'dmskv/2'] })).toBe(false);
    expect(mayShareQueue(N, { ...N, modelIds: [...N.modelIds, 'new'] })).toBe(false);
  });
});

test('says in a sentence what keeps a rollout waiting', () => {
  expect(sentenceOf({ kind: 'roll' })).toMatch(/at once/);
  expect(sentenceOf({ kind: 'drain', stranded: 1, changed: 2 })).toBe('1 job could not go on (another model, cache layout or format); 2 jobs would go on with other bits (another numericsId): the workers that are there finish them first');
});
