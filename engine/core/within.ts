/** A bound on work that cannot count its own steps: regular expressions and parsers of files that came from outside. */
import { nodeVm } from './host.ts';

const realm: { work?: (() => void) | undefined } = nodeVm?.createContext({}) ?? {};
const call = nodeVm === undefined ? null : new nodeVm.Script('work()');

/**
 * Runs synchronous work and ends it after `limitMs`: V8 stops even a regular expression that backtracks. Never changes a result. Where there
 * is no Node the runtime ends a request that computes for too long, whatever it computes (workerd: `limits.cpu_ms`).
 * @example const ids = withinMs(60_000, () => tokenizer.encode(text), () => new EngineError('ERR_TOKENIZER', '…'));
 * @throws what `late` makes, or whatever the work throws.
 */
export function withinMs<T>(limitMs: number, work: () => T, late: () => Error): T {
  if (call === null) return work();
  let result: { readonly value: T } | undefined;
  const outer = realm.work;
  realm.work = () => {
    result = { value: work() };
  };
  try {
    call.runInContext(realm, { timeout: limitMs });
  } catch (cause) {
    throw (cause as { code?: unknown } | null)?.code === 'ERR_SCRIPT_EXECUTION_TIMEOUT' ? late() : cause;
  } finally {
    realm.work = outer;
  }
  return (result as { readonly value: T }).value;
}
