/** Every number of docs/COST.md that follows from prices and arithmetic, computed again; and quotes of the bundled model. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, test } from 'vitest';

import { type PricedQuote, price } from '../../cli/quote.ts';
import { quoteStage, stageText } from '../../cli/quote-stage.ts';
import { AS_OF, PRICES } from '../../engine/core/prices.ts';
import { kvReads, peakTokens } from '../../engine/job/budget.ts';
import { ACCELERATORS, decodeRate, EXAMPLE, exampleParkedBytes, IDLE_ROUND, usdPerMillionTokens } from '../../engine/job/cost.ts';
import { Session } from '../../engine/job/session.ts';
import { ROOT } from '../helpers/setup.ts';

const page = readFileSync(path.join(ROOT, 'docs', 'COST.md'), 'utf8');
const { promptTokens: PROMPT, length: LENGTH, width: WIDTH, bytesPerToken: BYTES_PER_TOKEN, shapes: SHAPES } = EXAMPLE;
const count = (n: number) => Math.floor(n).toString().replace(/\B(?=(\d{3})+$)/g, ',');
const rate = (machine: 'gpu' | 'gpu48', cr: 1 | 8) => decodeRate({ ...EXAMPLE, shape: SHAPES[cr] }, ACCELERATORS[machine]);

describe('docs/COST.md', () => {
  test('says of what job its example is', () => {
    const { readBytes, heldBytes } = EXAMPLE.weights;
    expect(page).toContain(`${EXAMPLE.name} in BF16 (${count(BYTES_PER_TOKEN)} bytes of KV a token, ${readBytes / 1e9} GB of weights read in a step and ${heldBytes / 1e9} GB held), a prompt of ${count(PROMPT)} tokens and chains of ${count(LENGTH)}, window ${SHAPES[8].window}:`);
  });

  test('has the prices of the table, of its date', () => {
    expect(page).toContain(`as of ${AS_OF}`);
  });

  for (const machine of ['gpu', 'gpu48'] as const) {
    for (const cr of [1, 8] as const) {
      test(`has the price of a million tokens on ${machine} at CR ${cr}`, () => {
        const { chains = 0, tokensPerSecond = 0 } = rate(machine, cr) ?? {};
        const usd = (price: 'onDemand' | 'spot') => usdPerMillionTokens(tokensPerSecond, PRICES.machines[machine][price]).toFixed(2);
        expect(page).toContain(`| ${machine} | ${cr} | ${chains} | ${Math.round(tokensPerSecond)} | ${usd('onDemand')} | ${usd('spot')} |`);
      });
    }
  }

  test('has the reads of a chain, and the price of a job', () => {
    expect(page).toContain(`a chain reads ${count(kvReads(PROMPT, LENGTH, SHAPES[1]))} at CR 1 and ${count(kvReads(PROMPT, LENGTH, SHAPES[8]))} at CR 8`);
    const usd = (machine: 'gpu' | 'gpu48', cr: 1 | 8, price: 'onDemand' | 'spot') => (usdPerMillionTokens(rate(machine, cr)?.tokensPerSecond ?? 0, PRICES.machines[machine][price]) * WIDTH * LENGTH) / 1e6;
    expect(page).toContain(`A job of 8 chains makes ${count(WIDTH * LENGTH)} tokens: ${usd('gpu', 1, 'onDemand').toFixed(1)} USD at CR 1 on the small machine, ${usd('gpu', 8, 'onDemand').toFixed(2)} at CR 8, ${usd('gpu48', 8, 'spot').toFixed(2)} on the large one as Spot`);
  });

  test('has what a parked job costs, and how long it takes to park', () => {
    const of = (cr: 1 | 8) => {
      const bytes = exampleParkedBytes(cr);
      expect(bytes).toBe(WIDTH * peakTokens(PROMPT, LENGTH, SHAPES[cr]) * BYTES_PER_TOKEN);
      return { gib: (bytes / 2 ** 30).toFixed(1), usd: ((bytes / 2 ** 30) * PRICES.s3.gibMonth).toFixed(2), seconds: ((bytes * 8) / 2.5e9).toFixed(0) };
    };
    const [dense, small] = [of(1), of(8)];
    expect(page).toContain(`${dense.gib} GiB and ${dense.usd} USD at CR 1; ${small.gib} GiB and ${small.usd} USD at CR 8. On a 2.5 Gbit/s line it is written in ${dense.seconds} s and ${small.seconds} s`);
  });

  test('has what an idle minute asks for', () => {
    const { lists, puts, gets, queue } = IDLE_ROUND;
    const usd = 730 * 60 * ((lists + puts) * PRICES.s3.put + gets * PRICES.s3.get + queue * PRICES.sqs.request);
    expect(page).toContain(`it asks for ${lists} listings, ${puts} put, ${gets} get and the length of the queue, ${usd.toFixed(2)} USD a month`);
  });
});

describe('a quote of a stage', () => {
  test('is a few dollars a month, and says what workers without a way out would add', () => {
    const prod = quoteStage('prod');
    expect(prod.usd_per_month).toBeCloseTo(prod.lines.reduce((sum, { usd_per_month: usd }) => sum + usd, 0), 9);
    expect(prod.usd_per_month).toBeLessThan(15);
    expect(page).toContain(`**${Math.round(prod.private_usd_per_month)} more**`);
    expect(stageText(prod)).toContain(`with network.access 'private' ${prod.private_usd_per_month.toFixed(2)} more, for 9 interface endpoints in each of 2 zones`);
    expect(stageText(quoteStage('dev'))).toContain('none: Lambda runs its workers');
  });

  test('has the price of a million tokens of the worked example, dense and compressed, and of a month in which it is parked', () => {
    const { example } = quoteStage('prod');
    expect(example.prices.map(({ machine, compression_ratio: cr }) => `${machine} ${cr}`)).toEqual(['gpu 1', 'gpu 8', 'gpu48 1', 'gpu48 8']);
    for (const { machine, compression_ratio: cr, usd_per_million_tokens: list, spot_usd_per_million_tokens: spot } of example.prices) {
      expect(page).toMatch(new RegExp(`\\| ${machine} \\| ${cr} \\| \\d+ \\| \\d+ \\| ${list?.toFixed(2)} \\| ${spot?.toFixed(2)} \\|`));
    }
    expect(example.parked.map(({ usd_per_month: usd }) => usd.toFixed(2))).toEqual(['0.83', '0.11']);
    expect(stageText(quoteStage('prod'))).toMatch(/gpu48 +8 +0\.67 +0\.27/);
  });

  test('that is not there names those that are', () => {
    for (const name of ['production', 'constructor']) expect(() => quoteStage(name)).toThrow(/dev, prod, verify/);
  });
});

describe('a quote', () => {
  const quoted = async (flags: Partial<Parameters<typeof price>[1]> = {}, measured: number | null = null, basis: 'jobs' | 'probe' = 'jobs'): Promise<PricedQuote> => {
    using session = new Session();
    const job = await session.prepare({ model: 'countdown', prompt: '4 20 8 13 target 59', budget: { width: 4, length: 512 } });
    return price(job, { machine: 'cpu', ...flags }, measured === null ? null : { tokensPerSecond: measured, basis });
  };

  test('goes by what is said, then by what workers have measured, then by an estimate for a GPU, and else has no price', async () => {
    expect(await quoted({ tokensPerSecond: 1_024 }, 7)).toMatchObject({ rate_from: 'option', completion_tokens: 2_048, worker_seconds: 2, usd: (2 * PRICES.machines.cpu.onDemand) / 3_600 });
    expect(await quoted({ spot: true }, 2_048)).toMatchObject({ rate_from: 'workers', worker_seconds: 1, usd: PRICES.machines.cpu.spot / 3_600, machine: { is_spot: true } });
    expect(await quoted({}, 2_048, 'probe')).toMatchObject({ rate_from: 'probe', worker_seconds: 1 });
    expect(await quoted({ machine: 'gpu' })).toMatchObject({ rate_from: 'estimate', machine: { accelerator: 'L4' }, chains_at_a_time: 64 });
    expect(await quoted()).toMatchObject({ rate_from: null, tokens_per_second: null, usd: null, usd_per_million_tokens: null });
  });

  test('takes the price of a worker that is said, and prices what is parked', async () => {
    const { usd_per_million_tokens: perMillion, machine, parked, quote } = await quoted({ tokensPerSecond: 1_000, usdPerHour: 3.6, spot: true });
    expect(machine).toMatchObject({ usd_per_hour: 3.6, is_spot: false });
    expect(perMillion).toBeCloseTo(1, 12);
    expect(parked.bytes).toBe(quote.expected.peak_kv_bytes);
    expect(parked.usd_per_month).toBeCloseTo((parked.bytes / 2 ** 30) * PRICES.s3.gibMonth, 12);
  });

  test('says that a machine is too small by having no speed', () => {
    expect(decodeRate({ weights: { readBytes: 30e9, heldBytes: 30e9 }, bytesPerToken: 1, shape: SHAPES[1], promptTokens: 1, length: 1 }, ACCELERATORS.gpu)).toBeNull();
  });
});
