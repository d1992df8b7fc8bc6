/** A stored job as a person looks at it: facts, a line of tokens for every chain with the cuts at which a fork can begin, what is garbage. */
import type { Anatomy } from '../engine/checkpoint/anatomy.ts';
import type { Manifest } from '../engine/kv/manifest.ts';
import { ago, bytes, count, plural, safe, table, type Paint } from './text.ts';

export interface AnatomyView {
  readonly paint: Paint;
  readonly columns: number;
  readonly nowMs: number;
}

const LINE_CELLS_MAX = 64;
/** Names of garbage and of what is missing: the rest is counted. */
const NAMES_MAX = 20;
/** Chains and slices of one picture. */
const ROWS_MAX = 64;

/** @example process.stdout.write(anatomyText(await anatomyOf(store, where), view)) */
export function anatomyText(anatomy: Anatomy, view: AnatomyView): string {
  const { manifest, garbage, missing, unknown } = anatomy;
  const { paint } = view;
  const parts = [factsText(anatomy, view)];
  if (manifest !== null) parts.push(slicesText(manifest, paint), chainsText(manifest, view));
  parts.push(namesText('missing', missing, paint.red));
  parts.push(namesText(`garbage, ${bytes(sum(garbage))}; \`ruminate gc ${anatomy.head.job}\` removes what no owner is about to name`, garbage.map(({ name }) => name), paint.dim));
  parts.push(namesText('no names of the format; left alone', unknown.map(({ name }) => name), paint.yellow));
  return `${parts.filter((part) => part !== '').join('\n\n')}\n`;
}

function factsText({ head, manifest, spec, objects, bytes: size, bytesByKind, writtenAtMs }: Anatomy, { paint, nowMs }: AnatomyView): string {
  const written = writtenAtMs === null ? '' : `, written ${ago(nowMs - writtenAtMs)}`;
  const kinds = Object.entries(bytesByKind).filter(([, of]) => of > 0).map(([kind, of]) => `${kind} ${bytes(of)}`).join(', ');
  const model = typeof spec?.spec.model === 'string' ? spec.spec.model : null;
  const rows: (readonly [string, string])[] = [
    ['job', paint.bold(head.job)],
    ['state', `${head.state}${manifest?.ended == null ? '' : ` (${safe(manifest.ended, { line: true })})`}, ${plural(head.slice, 'slice')}${head.strikes > 1 ? `, ${head.strikes} takes without progress` : ''}`],
    ['head', `version ${head.version}, epoch ${head.epoch}, fence ${head.gc}${head.owner === '' ? '' : `, last owner ${safe(head.owner, { line: true })}`}${written}`],
    ['stored', `${plural(objects, 'object')}, ${bytes(size)}${kinds === '' ? '' : `: ${kinds}`}`],
  ];
  if (head.journal.length > 0) rows.push(['journal', `${plural(head.journal.length, 'object')} after the last checkpoint, ${bytes(sum(head.journal))}`]);
  if (model !== null) rows.push(['model', safe(model, { line: true })]);
  if (spec?.parent != null) {
    const { kind, job, chain, at, version } = spec.parent;
    rows.push(['parent', `${kind === 'fork' ? 'forked from' : 'extends'} ${job} (version ${version})${chain === null ? '' : `, chain ${chain}`}${at === null ? '' : ` at token ${count(at)}`}`]);
  }
  if (manifest !== null) {
    rows.push(['modelId', manifest.modelId], ['layoutId', manifest.layoutId], ['numericsId', manifest.numericsId]);
    rows.push(['sealed', manifest.keys === null ? 'no' : `AES-256-GCM, keys of ${Object.keys(manifest.keys).join(', ')}`]);
  }
  const width = Math.max(...rows.map(([name]) => name.length));
  return rows.map(([name, value]) => `${paint.dim(name.padEnd(width))}  ${value}`).join('\n');
}

function slicesText({ slices }: Manifest, paint: Paint): string {
  if (slices.length === 0) return '';
  const shown = slices.slice(-ROWS_MAX);
  const rows = shown.map(({ slice, outcome, from, recomputed, reason }) => [count(slice), outcome, count(from), count(recomputed), safe(reason ?? '', { line: true })]);
  return [...more(slices.length - shown.length, 'earlier slice', paint), table([['slice', 'how', 'from step', 'recomputed', ''], ...rows], paint)].join('\n');
}

function chainsText(manifest: Manifest, { paint, columns }: AnatomyView): string {
  const { chains, promptTokens, objects } = manifest;
  const shown = chains.slice(0, ROWS_MAX);
  const longest = Math.max(1, ...chains.map(({ tokens }) => tokens));
  const size = (indices: readonly number[]) => indices.reduce((all, i) => all + (objects[i]?.bytes ?? 0), 0);
  const width = Math.max(8, Math.min(LINE_CELLS_MAX, columns - 16));
  const lines = shown.map(({ tokens, finish, segments, tails }, chain) => {
    const facts = [
      plural(tokens, 'token'), finish === null ? 'running' : safe(finish, { line: true }), `${plural(segments.length, 'segment')} ${bytes(size(segments))}`,
      `${plural(tails.length, 'tail')} ${bytes(size(tails.map(({ object }) => object)))}`,
    ].join(', ');
    const cuts = tails.length === 0 ? 'a fork computes everything again' : `a fork can begin at ${tails.map(({ at }) => count(at)).join(', ')}`;
    const label = `chain ${chain}`.padEnd(10);
    return `${paint.bold(label)}${paint.cyan(chainLine(tokens, tails.map(({ at }) => at), longest, width))}\n${' '.repeat(10)}${facts}${paint.dim(`; ${cuts}`)}`;
  });
  const key = `${paint.dim('prompt')}    ${plural(promptTokens, 'token')}${manifest.promptTail === null ? '' : `, its tail ${bytes(objects[manifest.promptTail]?.bytes ?? 0)}`}`;
  return [key, ...lines, ...more(chains.length - shown.length, 'more chain', paint)].join('\n');
}

/**
 * Tokens from left to right, all chains on one scale: `●` a kept tail, `━` what the tails hold, `┄` what only the journal has.
 * @example chainLine(1000, [400, 800], 1000, 11) // '━━━━●━━━●┄┄'
 */
export function chainLine(tokens: number, cuts: readonly number[], longest: number, width: number): string {
  const cell = (token: number) => Math.min(width - 1, Math.floor((token / longest) * (width - 1)));
  const newest = cell(cuts.at(-1) ?? 0);
  const marks = new Set(cuts.map(cell));
  const used = tokens === 0 && cuts.length === 0 ? 0 : cell(tokens) + 1;
  return Array.from({ length: used }, (_, i) => (marks.has(i) ? '●' : i < newest ? '━' : '┄')).join('');
}

function namesText(title: string, names: readonly string[], paint: (text: string) => string): string {
  if (names.length === 0) return '';
  const shown = names.slice(0, NAMES_MAX).map((name) => `  ${paint(safe(name, { line: true }))}`);
  const left = names.length - shown.length;
  return [`${plural(names.length, 'object')} ${title}`, ...shown, ...(left > 0 ? [`  and ${count(left)} more`] : [])].join('\n');
}

function more(n: number, what: string, paint: Paint): readonly string[] {
  return n > 0 ? [paint.dim(`${plural(n, what)} not shown`)] : [];
}

function sum(items: readonly { readonly bytes: number }[]): number {
  return items.reduce((all, item) => all + item.bytes, 0);
}
