/** Durations as people write them: `500ms`, `30s`, `1.5m`, `12h`, `7d`; without a unit they are seconds. */

const UNITS_MS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** Whole milliseconds; null: it is none. @example durationOf('1.5m') // 90000 */
export function durationOf(text: string): number | null {
  const [, digits, unit = 's'] = /^(\d{1,9}(?:\.\d{1,6})?)(ms|s|m|h|d)?$/.exec(text) ?? [];
  return digits === undefined ? null : Math.round(Number(digits) * (UNITS_MS[unit] ?? NaN));
}
