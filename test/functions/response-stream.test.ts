/** The numbers of a response's events: a function of the job, whoever asks and wherever he goes on. */
import { describe, expect, test } from 'vitest';

import type { JobEvent, JobView } from '../../engine/control/platform.ts';
import { responseFrames } from '../../functions/openai/response-stream.ts';

const VIEW: JobView = {
  id: 'sums', state: 'cancelled', model: 'countdown', createdMs: 0, slice: 0, epoch: 2, step: 3, chains: [{ tokens: 3, finish: null }], ended: 'cancelled', parent: null, cachedTokens: 0, tools: null,
  metadata: null, user: null, asked: { temperature: 1, topP: 1, format: null, logprobs: null, instructions: null, repeated: null }, length: 9, expiresMs: null, evidence: null,
};

type Told = { readonly type: string; readonly sequence_number: number; readonly text?: string };

/** What a reader is told of a job that was cancelled with so many tokens. */
async function read(tokens: number, startingAfter: number | null): Promise<Told[]> {
  async function* events(): AsyncGenerator<JobEvent> {
    for (let seq = 0; seq < tokens; seq++) yield { kind: 'token', seq, chain: 0, index: seq, token: seq, delta: { reasoning: `${seq} `, content: '', calls: [] } } as unknown as JobEvent;
    yield { kind: 'state', state: 'cancelled' };
  }
  const told: Told[] = [];
  for await (const frame of responseFrames(events(), VIEW, async () => ({ view: VIEW, endedMs: null }), startingAfter)) told.push(JSON.parse(/^data: (.*)$/m.exec(frame)?.[1] ?? '') as Told);
  return told;
}

const END = ['response.reasoning_text.done', 'response.content_part.done', 'response.output_item.done', 'response.failed'];
const typesOf = (told: readonly Told[]) => told.map(({ type }) => type);

describe('a response that ended without a result', () => {
  test.each([0, 1, 3])('is told from any number on as it is told as a whole, and nothing twice, its end neither (%i tokens)', async (tokens) => {
    const whole = await read(tokens, null);
    expect(typesOf(whole).slice(-4)).toEqual(tokens === 0 ? ['response.created', 'response.in_progress', 'response.failed'] : END);
    const numbers = whole.map(({ sequence_number }) => sequence_number);
    expect(numbers).toEqual([...new Set(numbers)].toSorted((a, b) => a - b));
    for (const [i, number] of numbers.entries()) expect(await read(tokens, number), `after ${number}`).toEqual(whole.slice(i + 1));
  });

  test('ends once, too, for who read further along with the run than was ever committed', async () => {
    const [committed, seen] = [2, 5];
    const places = (told: readonly Told[]) => told.map(({ type, sequence_number: number }) => [type, number]);
    const whole = await read(seen, null);
    // What he has of the run is in no store; how it ended he is told, under the numbers that he would have seen it have there.
    const isAhead = ({ sequence_number: number }: Told) => number >= 2 + 2_048 * (seen - 1);
    for (const [i, told] of whole.entries()) if (isAhead(told)) expect(places(await read(committed, told.sequence_number)), `after ${told.sequence_number}`).toEqual(places(whole.slice(i + 1)));
    expect(await read(2, Number.MAX_SAFE_INTEGER)).toEqual([]);
  });
});
