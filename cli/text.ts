/** Words and shapes of the terminal: numbers, bars, tables, colour. Pure: nothing here writes. */

/** Wraps text in colour, or returns it as it is. */
export interface Paint {
  bold(text: string): string;
  dim(text: string): string;
  green(text: string): string;
  yellow(text: string): string;
  red(text: string): string;
  cyan(text: string): string;
}

/** The part of a stream that decides how to write to it. */
export interface Terminal {
  readonly isTTY?: boolean;
  readonly columns?: number;
  readonly rows?: number;
  hasColors?(count?: number): boolean;
}

/**
 * Colours for a stream: none unless it is a terminal that has them (Node reads NO_COLOR and TERM=dumb there).
 * @example paintFor(process.stdout).bold('59')
 */
export function paintFor(stream: Terminal): Paint {
  const on = stream.isTTY === true && stream.hasColors?.(16) === true;
  const code = (open: number, close: number) => (text: string) => (on ? `\u001b[${open}m${text}\u001b[${close}m` : text);
  return { bold: code(1, 22), dim: code(2, 22), green: code(32, 39), yellow: code(33, 39), red: code(31, 39), cyan: code(36, 39) };
}

/** Whether a view may move the cursor there. A terminal that says it has no size (some CI, `script`) cannot be redrawn. */
export function canRedraw(stream: Terminal, term: string | undefined): boolean {
  return stream.isTTY === true && term !== 'dumb' && stream.columns !== 0 && stream.rows !== 0;
}

/** @example count(57933) // '57,933' */
export function count(n: number): string {
  return Math.round(n).toString().replace(/\B(?=(\d{3})+$)/g, ',');
}

/** @example bytes(18_874_368) // '18.0 MiB' */
export function bytes(n: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'] as const;
  let unit = 0;
  while (n >= 1024 && unit < units.length - 1) {
    n /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? n : n.toFixed(1)} ${units[unit]}`;
}

/** @example ratio(5.914) // '5.9x' */
export function ratio(x: number): string {
  return `${x.toFixed(1)}x`;
}

/** @example seconds(1480) // '1.5 s' */
export function seconds(ms: number): string {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

/** @example plural(1, 'chain') // '1 chain' */
export function plural(n: number, noun: string): string {
  return `${count(n)} ${noun}${n === 1 ? '' : 's'}`;
}

/** A bar of `width` cells, in eighths. */
export function bar(fraction: number, width: number): string {
  const eighths = Math.round(Math.min(1, Math.max(0, fraction)) * width * 8);
  const full = Math.floor(eighths / 8);
  const part = ['', '▏', '▎', '▍', '▌', '▋', '▊', '▉'][eighths % 8] ?? '';
  return ('█'.repeat(full) + part).padEnd(width, '░');
}

/**
 * Text a model wrote, made safe for a terminal: a model must not be able to send it escape codes.
 * Newlines and tabs stay unless `line`, which folds all white space into single blanks.
 */
export function safe(text: string, { line = false } = {}): string {
  const clean = text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, '');
  return line ? clean.replace(/\s+/g, ' ') : clean;
}

const WIDE = /[\p{Script=Han}\p{Script=Hangul}\p{Script=Hiragana}\p{Script=Katakana}\p{Emoji_Presentation}\u3000-\u303f\uff01-\uff60]/u;
const ZERO = /[\p{Mn}\p{Me}\p{Cf}]/u;

/** Cells of a terminal that `text` takes; good enough to keep a line from wrapping. */
export function cells(text: string): number {
  let n = 0;
  for (const char of text) n += ZERO.test(char) ? 0 : WIDE.test(char) ? 2 : 1;
  return n;
}

/** The end of `text` that fits `width` cells. */
export function tailOf(text: string, width: number): string {
  const chars = [...text];
  let used = 0;
  let from = chars.length;
  while (from > 0) {
    used += cells(chars[from - 1] ?? '');
    if (used > width) break;
    from -= 1;
  }
  return chars.slice(from).join('');
}

/** Columns aligned with two blanks between: the first to the left, numbers to the right. */
export function table(rows: readonly (readonly string[])[], paint?: Paint): string {
  const widths = (rows[0] ?? []).map((_, c) => Math.max(...rows.map((row) => cells(row[c] ?? ''))));
  const numeric = widths.map((_, c) => rows.slice(1).every((row) => /^[\d-]/.test(row[c] ?? '')));
  const lines = rows.map((row) =>
    row
      .map((cell, c) => {
        const blanks = ' '.repeat((widths[c] ?? 0) - cells(cell));
        return c > 0 && numeric[c] ? blanks + cell : cell + blanks;
      })
      .join('  ')
      .trimEnd(),
  );
  if (paint !== undefined && lines[0] !== undefined) lines[0] = paint.dim(lines[0]);
  return lines.join('\n');
}

/** @example ago(93_600_000) // '26 h ago' */
export function ago(ms: number): string {
  const units: readonly (readonly [number, string])[] = [[86_400_000, 'd'], [3_600_000, 'h'], [60_000, 'min']];
  const [unitMs, unit] = units.find(([size]) => ms >= 2 * size) ?? [1000, 's'];
  return `${Math.max(0, Math.floor(ms / unitMs))} ${unit} ago`;
}

/** Small sums keep two digits that say something. @example dollars(0.000041) // '$0.000041' */
export function dollars(usd: number): string {
  return `$${usd >= 0.01 || usd === 0 ? usd.toFixed(2) : usd < 1e-9 ? '0.00' : usd.toFixed(Math.min(12, 1 - Math.floor(Math.log10(usd))))}`;
}
