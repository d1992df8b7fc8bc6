/** The model checker of scripts/protocol says what docs/PROTOCOL.md says. The page's longer rows are in test/slow. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';

import { checked, hasPython, suiteOf, protocolRows, runProtocol, type Row } from '../helpers/protocol.ts';

const TIMEOUT_MS = 120_000;

interface Trace {
  readonly command: string;
  readonly rule: string;
  readonly violates: readonly string[];
  readonly steps: readonly { readonly actor: string; readonly action: string; readonly text: string }[];
}
const FIXTURE = new URL('../fixtures-own/protocol-traces.json', import.meta.url);
const committed = JSON.parse(readFileSync(FIXTURE, 'utf8')) as Readonly<Record<string, Trace>>;

/** Rules that save work and that nothing breaks without. */
const ECONOMY = ['ack-stale-never'];

const rows = protocolRows();
const short = rows.filter((row) => suiteOf(row) === 'fast');

test('the page has short rows for every model', () => {
  const models = ['seq', 'cas', 'cas+ep', 'fence', 'full', 'create', 'deliver', 'join', 'stop'];
  expect(models.filter((model) => short.filter(({ command }) => command.split(' ')[0] === model).length < 2)).toEqual([]);
});

describe.skipIf(!hasPython())('the checker', () => {
  let found: ReadonlyMap<string, Row>;
  beforeAll(async () => {
    found = await checked(short.map(({ command }) => command), TIMEOUT_MS);
  }, TIMEOUT_MS);

  test.each(short)('$command: $verdict', (row) => {
    expect(found.get(row.command)).toEqual(row);
  });

  test('says what it found, how, and by its status that it found something', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'ruminate-protocol-'));
    try {
      const file = path.join(folder, 'trace.json');
      const { status, stdout } = await runProtocol(['full', '--lost-acks', '--ack', 'naive412', '--trace-json', file], TIMEOUT_MS);
      expect(status).toBe(1);
      expect(stdout).toContain('states 2,888  transitions ');
      expect(stdout).toContain('verdict: VIOLATION of once (the committed manifest applies a step twice, or skips one)');
      const { violates, steps } = JSON.parse(readFileSync(file, 'utf8')) as Trace;
      expect({ violates, steps }).toEqual({ violates: committed['N1']?.violates, steps: committed['N1']?.steps });
      expect(stdout.match(/^ *\d+\. .*$/gm)).toEqual(steps.map(({ text }, i) => `${String(i + 1).padStart(3)}. ${text}`));
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });

  test('says with status 3 that it did not finish', async () => {
    const { status, stdout } = await runProtocol(['full', '--max-states', '1000'], TIMEOUT_MS);
    expect(status).toBe(3);
    expect(stdout).toContain('verdict: INCOMPLETE');
  });

  test('gives the named traces that the simulation replays', async () => {
    const { status, stdout } = await runProtocol(['traces'], TIMEOUT_MS);
    expect(status).toBe(0);
    expect(JSON.parse(stdout)).toEqual(committed);
    const names = ['S1', 'S2', 'S3', 'C1', 'C2', 'E1', 'G1', 'G2', 'N1', 'N2', 'N3', 'N4', 'F1', 'F2', 'F3', 'F4'];
    expect(names.filter((name) => committed[name] === undefined)).toEqual([]);
    const steps = Object.values(committed).flatMap((trace) => trace.steps);
    expect(steps.filter(({ actor, action }) => actor === '' || action === '')).toEqual([]);
  });

  test('a row of the page shows for every rule what breaks without it', async () => {
    const helps = await Promise.all(['full', 'create', 'deliver', 'join', 'stop'].map((model) => runProtocol([model, '--help'], TIMEOUT_MS)));
    const rules = helps.map(({ stdout }) => {
      const said = stdout.replace(/-\n\s+/g, '-').replace(/\s+/g, ' ').match(/break a rule: (.*?) --check/)?.[1] ?? '';
      return [...said.matchAll(/(?:^|; )([a-z0-9-]+):/g)].map((match) => match[1] ?? '');
    });
    expect(rules.map((of) => of.length)).toEqual([27, 17, 11, 9, 4]);
    const broken = (rule: string) => rows.some(({ command, verdict }) => command.includes(`--mutate ${rule}`) && verdict.startsWith('**violates'));
    expect(rules.flat().filter((rule) => !broken(rule))).toEqual(ECONOMY);
  });

  test.each([[[]], [['fulll']], [['full', '--mutate', 'spec-last']], [['seq', '--cancels']], [['join', '--takes', '1']]])(
    'refuses %j with status 2 and says why',
    async (args) => {
      const { status, stderr } = await runProtocol(args, TIMEOUT_MS);
      expect([status, stderr.length > 0]).toEqual([2, true]);
    },
  );
});
