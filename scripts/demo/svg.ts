/** As much SVG as two line charts need. Its own light background, so that it reads the same on a dark page. */
import { count } from '../../cli/text.ts';

export type Point = readonly [number, number];
export interface Box {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
}
export type Scale = (value: number) => number;

const INK = '#1f2937';
const MUTED = '#6b7280';
const GRID = '#e5e7eb';
const PAPER = '#ffffff';

export function scale(box: Box, [x0, x1]: Point, [y0, y1]: Point): { x: Scale; y: Scale } {
  return {
    x: (value) => round(box.left + ((value - x0) / (x1 - x0)) * box.width),
    y: (value) => round(box.top + box.height - ((value - y0) / (y1 - y0)) * box.height),
  };
}

export function svg({ title, width, height, body, caption }: { title: string; width: number; height: number; body: readonly string[]; caption: readonly string[] }): string {
  const lines = caption.map((line, i) => text(32, height - 52 + 18 * i, line, { size: 12, ink: i < 2 ? INK : MUTED }));
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-label="${escape(title)}" font-family="system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif">
<rect width="${width}" height="${height}" rx="10" fill="${PAPER}"/>
${text(32, 36, title, { size: 17, weight: 600 })}
${[...body, ...lines].join('\n')}
</svg>
`;
}

/** Title above, name of the x axis below. */
export function panel(title: string, axis: string, { left, top, width, height }: Box): string {
  return text(left, top - 16, title, { size: 13, weight: 600 }) + text(left + width, top + height + 34, axis, { size: 11, ink: MUTED, anchor: 'end' });
}

export function axes(box: Box, x: Scale, y: Scale, xs: readonly number[], ys: readonly number[]): string {
  const right = box.left + box.width;
  const bottom = box.top + box.height;
  const rows = ys.map((value) => `<path d="M${box.left} ${y(value)}H${right}" stroke="${GRID}"/>${text(box.left - 8, y(value) + 4, count(value), { size: 11, ink: MUTED, anchor: 'end' })}`);
  const columns = xs.map((value) => text(x(value), bottom + 17, count(value), { size: 11, ink: MUTED, anchor: 'middle' }));
  return [...rows, ...columns].join('\n');
}

export function curve(points: readonly Point[], x: Scale, y: Scale, ink: string, { dashed = false } = {}): string {
  const path = points.map(([px, py], i) => `${i === 0 ? 'M' : 'L'}${x(px)} ${y(py)}`).join('');
  return `<path d="${path}" fill="none" stroke="${ink}" stroke-width="${dashed ? 1.2 : 2}" stroke-linejoin="round"${dashed ? ' stroke-dasharray="4 4"' : ''}/>`;
}

/** `ringed`: the answer checked. */
export function dot(cx: number, cy: number, ink: string, ringed: boolean): string {
  const ring = ringed ? `<circle cx="${cx}" cy="${cy}" r="7" fill="none" stroke="${ink}" stroke-width="1.5"/>` : '';
  return `<circle cx="${cx}" cy="${cy}" r="3.5" fill="${ink}"/>${ring}`;
}

export function label(x: number, y: number, words: string, ink: string, { anchor = 'start' }: { anchor?: Anchor } = {}): string {
  return text(round(x), round(y), words, { size: 12, ink, anchor });
}

type Anchor = 'start' | 'middle' | 'end';

function text(x: number, y: number, words: string, { size, ink = INK, weight = 400, anchor = 'start' }: { size: number; ink?: string; weight?: number; anchor?: Anchor }): string {
  return `<text x="${x}" y="${y}" font-size="${size}" fill="${ink}"${weight === 400 ? '' : ` font-weight="${weight}"`}${anchor === 'start' ? '' : ` text-anchor="${anchor}"`}>${escape(words)}</text>`;
}

function escape(words: string): string {
  return words.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;').replace(/"/g, '&quot;');
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
