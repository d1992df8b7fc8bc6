/** `ruminate quote --stage NAME`: what a stage of infra/ costs while nobody asks it for anything, and what private workers would add. */
import { EngineError } from '../engine/core/errors.ts';
import { AS_OF, PRICES } from '../engine/core/prices.ts';
import { type IdleLine, idleMonth, PRIVATE_ENDPOINTS, STAGES } from '../engine/job/idle.ts';
import { count, paintFor, table } from './text.ts';

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
  readonly prices_as_of: string;
}

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
    prices_as_of: AS_OF,
  };
}

export function stageText({ stage, usd_per_month: usd, lines, zones, private_usd_per_month: isolated, address_usd_per_hour: address }: StageQuote): string {
  const paint = paintFor(process.stdout);
  const rows = table([['', 'how many', 'USD a month'], ...lines.map(({ what, count: n, usd_per_month }) => [what, Number.isInteger(n) ? count(n) : n.toFixed(1), usd_per_month.toFixed(2)])], paint);
  const network = zones === 0 ? 'none: Lambda runs its workers' : `public; with network.access 'private' ${isolated.toFixed(2)} more, for ${PRIVATE_ENDPOINTS} interface endpoints in each of ${zones} zones`;
  return `${paint.bold(stage)} while nobody asks: ${usd.toFixed(2)} USD a month

${rows}

network   ${network}
workers   none; one that runs costs ${zones === 0 ? 'its seconds' : `its machine, and ${address} USD an hour for its public address`} (without --stage: what a job costs)
${paint.dim(`list prices as of ${AS_OF} (engine/core/prices.ts)`)}
`;
}
