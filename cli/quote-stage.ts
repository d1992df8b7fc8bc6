/** `ruminate quote --stage NAME`: what a stage of infra/ costs while nobody asks it for anything, what private workers would add, and what the worked example of docs/COST.md costs on it. */
import { EngineError } from '../engine/core/errors.ts';
import { AS_OF, PRICES } from '../engine/core/prices.ts';
import { monthlyCost } from '../engine/checkpoint/survey.ts';
import { ACCELERATORS, decodeRate, EXAMPLE, exampleParkedBytes, usdPerMillionTokens } from '../engine/job/cost.ts';
import { type IdleLine, idleMonth, PRIVATE_ENDPOINTS, STAGES } from '../engine/job/idle.ts';
import { bytes, count, paintFor, plural, table } from './text.ts';

/** As it is printed with --json. */
export interface StageQuote {
  readonly stage: string;
  readonly usd_per_month: number;
  readonly lines: readonly { readonly what: string; readonly count: number; readonly usd_per_month: number }[];
  /** Of its network; 0: it has none, because Lambda runs its workers. */
  readonly zones: number;
  /** What `network.access: 'private'` adds. */
  readonly private_usd_per_month: number;
  /** Of the public address of a worker's machine, while it runs. */
  readonly address_usd_per_hour: number;
  /** EXAMPLE of engine/job/cost.ts: an estimate for workers that are busy; null: the machine does not hold it. */
  readonly example: {
    readonly model: string;
    readonly prices: readonly { readonly machine: keyof typeof ACCELERATORS; readonly compression_ratio: number; readonly usd_per_million_tokens: number | null; readonly spot_usd_per_million_tokens: number | null }[];
    readonly parked: readonly { readonly compression_ratio: number; readonly bytes: number; readonly usd_per_month: number }[];
  };
  readonly prices_as_of: string;
}

const RATIOS = [1, 8] as const;

/** @throws EngineError ERR_OPTION: there is no such stage. */
export function quoteStage(name: string): StageQuote {
  const stage = Object.hasOwn(STAGES, name) ? STAGES[name] : undefined;
  if (stage === undefined) throw new EngineError('ERR_OPTION', `There is no stage ${JSON.stringify(name)} in infra/config.ts: ${Object.keys(STAGES).join(', ')}. For one of your own: npx tsx cost.ts --stage NAME, in infra.`);
  const { lines, usdPerMonth } = idleMonth(stage.parts);
  return {
    stage: name,
    usd_per_month: usdPerMonth,
    lines: lines.map(({ what, count: n, usdPerMonth: usd }: IdleLine) => ({ what, count: n, usd_per_month: usd })),
    zones: stage.zones,
    private_usd_per_month: idleMonth({ endpoints: PRIVATE_ENDPOINTS * stage.zones }).usdPerMonth,
    address_usd_per_hour: PRICES.vpc.addressHour,
    example: {
      model: EXAMPLE.name,
      prices: (['gpu', 'gpu48'] as const).flatMap((machine) => RATIOS.map((cr) => {
        const rate = decodeRate({ ...EXAMPLE, shape: EXAMPLE.shapes[cr] }, ACCELERATORS[machine])?.tokensPerSecond;
        const usd = (perHour: number): number | null => (rate === undefined ? null : usdPerMillionTokens(rate, perHour));
        const { onDemand, spot } = PRICES.machines[machine];
        return { machine, compression_ratio: cr, usd_per_million_tokens: usd(onDemand), spot_usd_per_million_tokens: usd(spot) };
      })),
      parked: RATIOS.map((cr) => ({ compression_ratio: cr, bytes: exampleParkedBytes(cr), usd_per_month: monthlyCost(exampleParkedBytes(cr), PRICES.s3.gibMonth) })),
    },
    prices_as_of: AS_OF,
  };
}

export function stageText({ stage, usd_per_month: usd, lines, zones, private_usd_per_month: isolated, address_usd_per_hour: address, example }: StageQuote): string {
  const paint = paintFor(process.stdout);
  const rows = table([['', 'how many', 'USD a month'], ...lines.map(({ what, count: n, usd_per_month }) => [what, Number.isInteger(n) ? count(n) : n.toFixed(1), usd_per_month.toFixed(2)])], paint);
  const network = zones === 0 ? 'none: Lambda runs its workers' : `public; with network.access 'private' ${isolated.toFixed(2)} more, for ${PRIVATE_ENDPOINTS} interface endpoints in each of ${zones} zones`;
  const usdOf = (price: number | null) => price?.toFixed(2) ?? 'too large';
  const reasoning = table([['machine', 'CR', 'list', 'Spot'], ...example.prices.map(({ machine, compression_ratio: cr, usd_per_million_tokens: list, spot_usd_per_million_tokens: spot }) => [machine, String(cr), usdOf(list), usdOf(spot)])], paint);
  const parked = example.parked.map(({ compression_ratio: cr, usd_per_month: price, bytes: held }) => `${price.toFixed(2)} USD a month at CR ${cr} (${bytes(held)})`).join(', ');
  return `${paint.bold(stage)} while nobody asks: ${usd.toFixed(2)} USD a month

${rows}

network   ${network}
workers   none; one that runs costs ${zones === 0 ? 'its seconds' : `its machine, and ${address} USD an hour for its public address`} (without --stage: what a job costs)

${paint.bold(example.model)}, ${plural(EXAMPLE.width, 'chain')} of ${count(EXAMPLE.length)} tokens, as docs/COST.md has it: USD for a million tokens of busy workers, estimated

${reasoning}

parked    ${parked}
${paint.dim(`list prices as of ${AS_OF} (engine/core/prices.ts)`)}
`;
}
