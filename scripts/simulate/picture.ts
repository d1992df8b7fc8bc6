/** Cost against latency, a mark for each policy. */
import { type Conditions, conditionLine } from '../bench/conditions.ts';
import { axes, label, panel, scale, svg } from '../demo/svg.ts';
import type { Outcome } from './fleet.ts';

const DENSE_INK = '#c2410c';
const SPARSE_INK = '#1d4ed8';

export function picture(outcomes: readonly Outcome[], { workload, measured, command }: { readonly workload: string; readonly measured: Conditions; readonly command: string }): string {
  const shown = outcomes.filter(({ unfinished }) => unfinished === 0);
  return svg({
    title: 'A fleet by policy: what it costs, and how long a job takes',
    width: 980,
    height: 200 + 22 * outcomes.length,
    body: [bars({ left: 270, width: 250 }, 'USD', shown, ({ cost_usd }) => cost_usd, (value) => value.toFixed(2)), bars({ left: 600, width: 250 }, 'p95 of interactive jobs, minutes', shown, ({ latency_s }) => latency_s.p95 / 60, (value) => value.toFixed(1)), names(shown)].flat(),
    caption: [workload, `measured: ${conditionLine(measured).slice(0, 110)}`, command],
  });
}

const TOP = 84;
const ROW = 24;

function names(outcomes: readonly Outcome[]): string[] {
  return outcomes.map(({ policy }, i) => label(24, TOP + ROW * i + 12, policy, inkOf(policy)));
}

function bars({ left, width }: { readonly left: number; readonly width: number }, title: string, outcomes: readonly Outcome[], of: (outcome: Outcome) => number, text: (value: number) => string): string[] {
  const box = { left, top: TOP, width, height: ROW * outcomes.length };
  const most = Math.max(...outcomes.map(of)) || 1;
  const { x, y } = scale(box, [0, most], [0, 1]);
  return [
    panel(title, '', box),
    axes(box, x, y, [], []),
    ...outcomes.flatMap((outcome, i) => {
      const at = TOP + ROW * i;
      return [`<rect x="${left}" y="${at + 1}" width="${Math.max(1, Math.round(x(of(outcome)) - left))}" height="15" rx="2" fill="${inkOf(outcome.policy)}"/>`, label(x(of(outcome)) + 6, at + 13, text(of(outcome)), inkOf(outcome.policy))];
    }),
  ];
}

function inkOf(policy: string): string {
  return policy.includes('CR 8') ? SPARSE_INK : DENSE_INK;
}
