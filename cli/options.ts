/** How the command line reads values. Only the form is checked here: ranges are the engine's, so that every caller gets the same answer. */
import { Command, InvalidArgumentError } from 'commander';

import type { Retention } from '../engine/control/retention.ts';
import { durationOf } from '../engine/core/duration.ts';
import { EngineError } from '../engine/core/errors.ts';
import { NAMESPACE_RULE, isNamespace } from '../functions/emf.ts';
import { isWebAddress, retentionOf } from '../functions/worker-env.ts';
import { EXIT } from './exit.ts';

export function integer(text: string): number {
  if (!/^-?\d{1,15}$/.test(text)) throw new InvalidArgumentError('Expected an integer.');
  return Number(text);
}

export function decimal(text: string): number {
  if (!/^-?(\d+\.?\d*|\.\d+)(e-?\d+)?$/i.test(text)) throw new InvalidArgumentError('Expected a number.');
  return Number(text);
}

/** 64 bits: more than a JS number holds. */
export function seed(text: string): bigint {
  if (!/^\d{1,20}$/.test(text)) throw new InvalidArgumentError('Expected an integer from 0 to 2^64 - 1.');
  return BigInt(text);
}

/** @example durationMs('1.5m') // 90000 */
export function durationMs(text: string): number {
  const ms = durationOf(text);
  if (ms === null) throw new InvalidArgumentError('Expected a duration such as 30s, 500ms or 2m.');
  return ms;
}

/** For an option that may be given several times. */
export function repeated(text: string, before: readonly string[] | undefined): readonly string[] {
  return [...(before ?? []), text];
}

/** The names of config.json are accepted for the ones of the engine. */
const ALIASES: ReadonlyMap<string, string> = new Map([['window_size', 'window'], ['initial_alpha_offset', 'alpha_offset']]);

/**
 * For `--set key=value`, given once for each key.
 * @example setting('dms_window_size=16', {}) // { window: '16' }
 */
export function setting(text: string, before: Readonly<Record<string, string>>): Readonly<Record<string, string>> {
  const at = text.indexOf('=');
  if (at < 1) throw new EngineError('ERR_OPTION', `--set takes key=value; got "${text}".`);
  const name = text.slice(0, at).replace(/^dms_/, '');
  // Others, as __proto__, are of no option and would be lost on the way to the engine, which knows them all.
  if (!/^[a-z]/i.test(name)) throw new EngineError('ERR_OPTION', `--set takes key=value with the name of an option; got "${text}".`);
  const key = ALIASES.get(name) ?? name;
  if (Object.hasOwn(before, key)) throw new EngineError('ERR_OPTION', `--set ${key} is given twice.`);
  return { ...before, [key]: text.slice(at + 1) };
}

/** A command whose mistakes are one line with a code, and which never ends the process by itself. */
export function command(name: string): Command {
  return new Command(name)
    .exitOverride()
    .showHelpAfterError(false)
    .configureOutput({
      outputError: (text, write) => {
        const sentence = text.replace(/^error: /, '').replace(/\s*\n\s*/g, ' ').trim().replace(/\.$/, '');
        write(`ruminate: ERR_OPTION: ${sentence.slice(0, 1).toUpperCase()}${sentence.slice(1)}; see --help.\n`);
      },
    });
}

/** What commander's way of ending means: help and version that were asked for are successes, the rest is usage. */
export function usageExit(code: string): number {
  return code === 'commander.helpDisplayed' || code === 'commander.version' ? EXIT.done : EXIT.usage;
}

/** @param given by an option; default: RUMINATE_USD_PER_HOUR, as functions read it. null: not known. @throws EngineError ERR_OPTION. */
export function usdPerHourOf(given: number | undefined, environment: NodeJS.ProcessEnv = process.env): number | null {
  const text = given?.toString() ?? environment.RUMINATE_USD_PER_HOUR ?? '';
  if (text === '') return null;
  const usd = given ?? (/^\d{1,15}(\.\d{1,9})?$/.test(text) ? Number(text) : Number.NaN);
  if (usd >= 0 && usd < 1e15) return usd;
  throw new EngineError('ERR_OPTION', `${given === undefined ? 'RUMINATE_USD_PER_HOUR' : 'usd-per-hour'} must be a number, 0 or more; got ${JSON.stringify(text.slice(0, 80))}.`);
}

/** @param given by options; default: RUMINATE_RETENTION and RUMINATE_RESULT_RETENTION. @throws EngineError ERR_OPTION. */
export function requireRetention(given: RetentionFlags): Retention {
  const wrong: string[] = [];
  const retention = retentionOf(given, process.env, wrong);
  if (wrong.length > 0) throw new EngineError('ERR_OPTION', `${wrong.join('; ')}.`);
  return retention;
}

export interface RetentionFlags {
  readonly retention?: string;
  readonly resultRetention?: string;
}

export function retentionOptions(options: Command): Command {
  return options
    .optionsGroup('Keeping:')
    .option('--retention <time>', 'how long the KV of a job that has ended is kept, for going on from it; none: until it is deleted (default: RUMINATE_RETENTION, else 7d)')
    .option('--result-retention <time>', 'how long its result is, and with it the job (default: RUMINATE_RESULT_RETENTION, else none)');
}

export const EMF_HELP = 'scaling signals as lines for CloudWatch on standard output, in that namespace, each minute (default: RUMINATE_EMF, else none)';

/** @param given by an option; default: RUMINATE_EMF. null: no lines. @throws EngineError ERR_OPTION. */
export function emfNamespaceOf(given: string | undefined, environment: NodeJS.ProcessEnv = process.env): string | null {
  const name = given ?? environment.RUMINATE_EMF ?? '';
  if (name === '') return null;
  if (isNamespace(name)) return name;
  throw new EngineError('ERR_OPTION', `${given === undefined ? 'RUMINATE_EMF' : '--emf'} must be ${NAMESPACE_RULE}; got ${JSON.stringify(name.slice(0, 80))}.`);
}

/** @param given by an option; default: RUMINATE_PUBLIC_URL. null: not known. @throws EngineError ERR_OPTION. */
export function publicUrlOf(given: string | undefined, environment: NodeJS.ProcessEnv = process.env): string | null {
  const url = given ?? environment.RUMINATE_PUBLIC_URL ?? '';
  if (url === '') return null;
  if (isWebAddress(url)) return url;
  throw new EngineError('ERR_OPTION', `${given === undefined ? 'RUMINATE_PUBLIC_URL' : '--public-url'} must begin with https:// or http://; got ${JSON.stringify(url.slice(0, 80))}.`);
}
