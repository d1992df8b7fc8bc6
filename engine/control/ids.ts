/** Ids of jobs that nobody has named: ULIDs, which sort by the time of their making and are never drawn twice. https://github.com/ulid/spec */
import { TIME_MAX, decodeTime, isValid, monotonicFactory } from 'ulid';

/** Of one process: later ids sort after earlier ones, also within a millisecond. */
export function jobIds(): (createdMs: number) => string {
  return monotonicFactory();
}

/** When it was made, of the wall clock; null: the id was named by somebody. */
export function timeOf(id: string): number | null {
  if (!isValid(id) || id !== id.toUpperCase()) return null;
  const ms = decodeTime(id);
  return ms <= TIME_MAX ? ms : null;
}
