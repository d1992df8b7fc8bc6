/** `ruminate quote`: what a job would read, take and cost, on a machine that need not be this one. Reads no weights. */
import { type Command, Option } from 'commander';

import { openStore } from '../engine/adapters/store-url.ts';
import { monthlyCost } from '../engine/checkpoint/survey.ts';
import { type Speed, modelRates, readRates } from '../engine/control/rates.ts';
import { EngineError } from '../engine/core/errors.ts';
import { AS_OF, PRICES } from '../engine/core/prices.ts';
import { type Quote, cacheShape } from '../engine/job/budget.ts';
import { ACCELERATORS, type DecodeRate, decodeRate, usdPerMillionTokens } from '../engine/job/cost.ts';
import { type PreparedJob, quoteOf } from '../engine/job/prepare.ts';
import { Session } from '../engine/job/session.ts';
import { onInterrupt } from './exit.ts';
import { modelFinder } from './finder.ts';
import { command, decimal, usdPerHourOf } from './options.ts';
import { quoteStage, stageText } from './quote-stage.ts';
import { type SpecFlags, promptOf, specOf, specOptions } from './spec-options.ts';
import { bytes, count, dollars, paintFor, plural, ratio, table } from './text.ts';

type MachineName = keyof typeof PRICES.machines;

interface QuoteFlags extends SpecFlags {
  readonly machine: MachineName;
  readonly spot?: boolean;
  readonly usdPerHour?: number;
  readonly tokensPerSecond?: number;
  readonly store?: string;
  readonly stage?: string;
  readonly json?: boolean;
}

/** As it is printed with --json. */
export interface PricedQuote {
  readonly model: string;
  readonly compression_ratio: number;
  readonly quote: Quote;
  readonly completion_tokens: number;
  readonly machine: { readonly name: MachineName; readonly accelerator: string | null; readonly usd_per_hour: number; readonly is_spot: boolean };
  /** Of all chains of a worker that has enough of them; null: nobody has said or measured it, and it cannot be estimated. */
  readonly tokens_per_second: number | null;
  readonly rate_from: 'option' | 'workers' | 'probe' | 'estimate' | null;
  /** Of an estimate: chains like these that the machine holds at a time. */
  readonly chains_at_a_time: number | null;
  /** Of one worker, shared with other jobs as far as it has room. */
  readonly worker_seconds: number | null;
  readonly usd: number | null;
  readonly usd_per_million_tokens: number | null;
  /** With all chains at their length, in S3. */
  readonly parked: { readonly bytes: number; readonly usd_per_month: number };
  readonly prices_as_of: string;
}

const EXAMPLES = `
The price of a token is that of a worker that is busy: an idle one costs as much and makes none. docs/COST.md has a worked example, and how an estimate is made.

Examples:
  $ ruminate quote "4 20 8 13 target 59" --tokens-per-second 900
  $ ruminate quote --prompt-file question.txt --model ./Qwen3-8B-DMS --length 32768 --width 8 --machine gpu48 --spot
  $ ruminate quote --prompt-file question.txt --model ./Qwen3-8B-DMS --store s3://bucket/prefix --json     (as fast as its workers are)
  $ ruminate quote --stage prod     (a month of infra/'s stage in which nobody asks)`;

export function quoteCommand(): Command {
  return specOptions(command('quote').description('what a job would read, take and cost, without running it'))
    .optionsGroup('Price:')
    .addOption(new Option('--machine <name>', 'of a worker: cpu (c7i.xlarge), gpu (g6.xlarge, an L4) or gpu48 (g6e.xlarge, an L40S)').choices(Object.keys(PRICES.machines)).default('cpu'))
    .option('--spot', 'at what Spot has been, instead of the list price')
    .option('--usd-per-hour <price>', 'of a worker, instead of either (default: RUMINATE_USD_PER_HOUR)', decimal)
    .option('--tokens-per-second <n>', 'that a busy worker makes, all of its jobs together (default: what workers of --store have measured, else an estimate for a GPU)', decimal)
    .option('--store <url>', 'whose workers have measured it: a directory, or s3://bucket/prefix')
    .option('--stage <name>', 'instead of a job: what a stage of infra/ costs a month while nobody asks')
    .optionsGroup('Output:')
    .option('--json', 'one JSON object')
    .addHelpText('after', EXAMPLES)
    .action(async (prompt: string | undefined, options: QuoteFlags) => {
      if (options.stage !== undefined) {
        if (prompt !== undefined || options.promptFile !== undefined) throw new EngineError('ERR_OPTION', '--stage is about no job: leave the prompt out.');
        const quoted = quoteStage(options.stage);
        process.stdout.write(options.json ? `${JSON.stringify(quoted)}\n` : stageText(quoted));
        return;
      }
      using interrupt = onInterrupt(() => {});
      const spec = specOf(promptOf(prompt, options), options);
      using session = new Session(modelFinder());
      const job = await session.prepare(spec, { signal: interrupt.signal });
      const priced = price(job, options, await measured(job, options, interrupt.signal));
      process.stdout.write(options.json ? `${JSON.stringify(priced)}\n` : text(priced));
    });
}

/** @throws EngineError ERR_OPTION, ERR_STORE. */
async function measured({ model, lengths }: PreparedJob, { store, tokensPerSecond }: QuoteFlags, signal: AbortSignal): Promise<Speed | null> {
  if (tokensPerSecond !== undefined && !(tokensPerSecond > 0)) throw new EngineError('ERR_OPTION', `tokens-per-second must be more than 0; got ${tokensPerSecond}.`);
  if (store === undefined || tokensPerSecond !== undefined) return null;
  return modelRates(await readRates(await openStore(store), { signal })).speed(nameOf(model), lengths.length);
}

export function price(job: PreparedJob, { machine, spot = false, usdPerHour, tokensPerSecond }: Pick<QuoteFlags, 'machine' | 'spot' | 'usdPerHour' | 'tokensPerSecond'>, measuredRate: Speed | null): PricedQuote {
  const { info, resolved } = job.model;
  const quote = quoteOf(job, info.fileBytes);
  const accelerator = machine === 'cpu' ? null : ACCELERATORS[machine];
  const estimate: DecodeRate | null = accelerator === null ? null : decodeRate({
    weights: { readBytes: readBytes(info), heldBytes: info.fileBytes },
    bytesPerToken: job.bytesPerToken,
    shape: cacheShape(info, job.keptFraction),
    promptTokens: quote.prompt_tokens,
    length: Math.max(...quote.lengths),
  }, accelerator);
  const [rate, from] = tokensPerSecond !== undefined ? [tokensPerSecond, 'option'] as const : measuredRate !== null ? [measuredRate.tokensPerSecond, measuredRate.basis === 'probe' ? 'probe' : 'workers'] as const : estimate !== null ? [estimate.tokensPerSecond, 'estimate'] as const : [null, null];
  const said = usdPerHourOf(usdPerHour);
  const perHour = said ?? PRICES.machines[machine][spot ? 'spot' : 'onDemand'];
  const tokens = quote.expected.completion_tokens;
  const perMillion = rate === null ? null : usdPerMillionTokens(rate, perHour);
  return {
    model: nameOf(job.model),
    compression_ratio: resolved.variantCard?.compression_ratio ?? Math.max(1, info.policy.targetCr),
    quote,
    completion_tokens: tokens,
    machine: { name: machine, accelerator: accelerator?.name ?? null, usd_per_hour: perHour, is_spot: spot && said === null },
    tokens_per_second: rate,
    rate_from: from,
    chains_at_a_time: from === 'estimate' ? (estimate?.chains ?? null) : null,
    worker_seconds: rate === null ? null : tokens / rate,
    usd: perMillion === null ? null : (tokens * perMillion) / 1e6,
    usd_per_million_tokens: perMillion,
    parked: { bytes: quote.expected.peak_kv_bytes, usd_per_month: monthlyCost(quote.expected.peak_kv_bytes, PRICES.s3.gibMonth) },
    prices_as_of: AS_OF,
  };
}

/** Rows of an embedding are looked up, not read; tied, they are the last matrix too, which is read whole. */
function readBytes({ fileBytes, tiedEmbeddings, vocabSize, hiddenSize, parameters }: PreparedJob['model']['info']): number {
  return tiedEmbeddings ? fileBytes : fileBytes * (1 - (vocabSize * hiddenSize) / parameters);
}

function nameOf({ resolved: { name, variant } }: PreparedJob['model']): string {
  return variant === null ? name : `${name}@${variant}`;
}

function text({ model, compression_ratio: cr, quote, completion_tokens: tokens, machine, tokens_per_second: rate, rate_from: from, chains_at_a_time: chains, worker_seconds: seconds, usd: cost, usd_per_million_tokens: perMillion, parked, prices_as_of: asOf }: PricedQuote): string {
  const { expected, worst } = quote;
  const paint = paintFor(process.stdout);
  const figures = table([
    ['', 'expected', 'if nothing is dropped'],
    ['KV reads', count(expected.kv_reads), count(worst.kv_reads)],
    ['KV at its largest', bytes(expected.peak_kv_bytes), bytes(worst.peak_kv_bytes)],
    ['memory', bytes(expected.allocated_bytes), bytes(worst.allocated_bytes)],
  ], paint);
  const said = { option: 'as you say', workers: 'as workers of the store have measured', probe: 'as a worker of the store has timed a few steps of so many chains alone', estimate: `estimated from its memory's bandwidth, ${plural(chains ?? 0, 'such chain')} at a time (the engine itself computes on CPUs so far)` };
  const speed = rate === null || from === null ? 'unknown: say it with --tokens-per-second, or which workers have measured it with --store' : `${count(rate)} tokens/s, ${said[from]}`;
  const who = `${machine.name}${machine.accelerator === null ? '' : ` (${machine.accelerator})`}, ${dollars(machine.usd_per_hour)} an hour${machine.is_spot ? ' as Spot' : ''}`;
  return `${paint.bold(model)} at CR ${ratio(cr)}: ${plural(quote.lengths.length, 'chain')} of at most ${count(Math.max(...quote.lengths))} tokens after a prompt of ${count(quote.prompt_tokens)}

${figures}

machine   ${who}
speed     ${speed}
price     ${cost === null || seconds === null || perMillion === null ? 'unknown' : `${dollars(cost)} for ${count(tokens)} tokens: ${seconds.toFixed(1)} s of a busy worker; ${dollars(perMillion)} for a million tokens`}
parked    ${dollars(parked.usd_per_month)} a month for ${bytes(parked.bytes)}
${paint.dim(`list prices as of ${asOf} (engine/core/prices.ts)`)}
`;
}
