/** Two charts of a run of the checkpoint bench: bytes stored, and time to go on. */
import { axes, type Box, curve, label, panel, type Point, scale, svg } from '../demo/svg.ts';
import type { CheckpointRun } from './figures.ts';

const DENSE_INK = '#c2410c';
const SPARSE_INK = '#1d4ed8';
const INKS: Readonly<Record<string, string>> = { dense: DENSE_INK, 'CR 8': SPARSE_INK };

export function picture({ cuts, resumes, conditions }: CheckpointRun): string {
  const widest = Math.max(...resumes.map(({ width }) => width));
  const store = resumes.at(-1)?.store ?? 'filesystem';
  const stored = (variant: string): Point[] => cuts.filter((cut) => cut.variant === variant && cut.width === 1).map(({ tokens, raw }) => [tokens, (raw.segment + raw.tail + raw.journal) / 1_024]);
  const times = (variant: string, of: 'resume_ms' | 'recompute_ms'): Point[] =>
    resumes.filter((r) => r.variant === variant && r.width === widest && r.store === store).map((r) => [r.tokens, r[of]]);
  return svg({
    title: 'Checkpoints of the bundled model: what they hold, and what they save',
    width: 900,
    height: 440,
    body: [
      chart({ left: 80, top: 84, width: 340, height: 220 }, 'KiB stored by one chain, uncompressed codec', Object.keys(INKS).map((variant) => ({ name: variant, ink: INKS[variant] ?? '', points: stored(variant), dashed: false }))),
      chart({ left: 524, top: 84, width: 320, height: 220 }, `ms to the first new token, ${widest} chains, ${store}`, Object.keys(INKS).flatMap((variant) => [
        { name: `${variant}, going on`, ink: INKS[variant] ?? '', points: times(variant, 'resume_ms'), dashed: false },
        { name: `${variant}, computed again`, ink: INKS[variant] ?? '', points: times(variant, 'recompute_ms'), dashed: true },
      ])),
    ],
    caption: [
      'Left: segments, tail and journal of one save. Right: medians, model loading included; dashed: from the journals alone.',
      `${conditions.cpu}, ${conditions.cores} cores shared with other work (load ${conditions.load}), commit ${conditions.commit}.`,
      'npm run bench -- checkpoint',
    ],
  });
}

interface Line {
  readonly name: string;
  readonly ink: string;
  readonly points: readonly Point[];
  readonly dashed: boolean;
}

function chart(box: Box, title: string, lines: readonly Line[]): string {
  const xs = [...new Set(lines.flatMap(({ points }) => points.map(([x]) => x)))];
  const most = Math.max(...lines.flatMap(({ points }) => points.map(([, y]) => y)));
  const step = roundStep(most / 4);
  const { x, y } = scale(box, [0, Math.max(...xs)], [0, most * 1.05]);
  const rows = Array.from({ length: Math.floor(most / step) + 1 }, (_, i) => i * step);
  const key = lines.map((line, i) => label(box.left + 12, box.top + 14 + 16 * i, `${line.dashed ? '- - ' : '— '}${line.name}`, line.ink));
  return [panel(title, 'tokens of each chain', box), axes(box, x, y, xs.filter((value) => value >= 128), rows), ...lines.map(({ points, ink, dashed }) => curve(points, x, y, ink, { dashed })), ...key].join('\n');
}

/** 1, 2 or 5 times a power of ten, not less than `value`. */
function roundStep(value: number): number {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= value) ?? value;
}
