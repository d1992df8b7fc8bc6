/** The log where there is no pino: lines of JSON on the console, as CloudWatch and Workers' logs take them. Ids and numbers, never prompts. */
import type { WorkerLog } from './context.ts';

export const LOG_LEVELS = ['debug', 'info', 'warn', 'error', 'silent'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

export function consoleLog(least: LogLevel): WorkerLog {
  const write = (level: LogLevel) => (fields: object, msg: string) => {
    if (LOG_LEVELS.indexOf(level) < LOG_LEVELS.indexOf(least)) return;
    console.log(JSON.stringify({ level, time: new Date().toISOString(), ...fields, msg }, plain));
  };
  return { debug: write('debug'), info: write('info'), warn: write('warn'), error: write('error') };
}

/** Errors have no fields of their own that JSON shows. */
function plain(_: string, value: unknown): unknown {
  if (!(value instanceof Error)) return value;
  const { name, message, stack, cause } = value;
  return { type: name, code: (value as { readonly code?: unknown }).code, message, stack, cause: cause instanceof Error ? cause.message : undefined };
}
