/** The rows of docs/PROTOCOL.md, and the model checker that they are about. */
import { execFile, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const PAGE = path.join(ROOT, 'docs', 'PROTOCOL.md');

export interface Row {
  readonly command: string;
  readonly states: number;
  /** In words: `no violation`, `**violates once**, 11 steps`, `none found, **not finished**`. */
  readonly verdict: string;
}

export interface Ended {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Whether there is the Python that the checker is written for. */
export function hasPython(): boolean {
  return spawnSync('python3', ['-c', 'import sys; sys.exit(sys.version_info < (3, 11))']).status === 0;
}

export function protocolRows(): readonly Row[] {
  return parse(readFileSync(PAGE, 'utf8'));
}

/** What each suite has time for: by states, which no machine changes. The soak takes what is left, searches of minutes. */
export function suiteOf({ states }: Row): 'fast' | 'slow' | 'soak' {
  return states <= 2_500 ? 'fast' : states <= 20_000 ? 'slow' : 'soak';
}

export function runProtocol(args: readonly string[], timeoutMs: number): Promise<Ended> {
  return new Promise((resolve) => {
    const options = { cwd: ROOT, timeout: timeoutMs, maxBuffer: 16 * 1024 * 1024 };
    execFile('python3', ['scripts/protocol', ...args], options, (error, stdout, stderr) => {
      resolve({ status: typeof error?.code === 'number' ? error.code : error === null ? 0 : -1, stdout, stderr });
    });
  });
}

/** What the checker finds for these commands, by command: the page's rows without their figures, as one page for it to fill in. */
export async function checked(commands: readonly string[], timeoutMs: number): Promise<ReadonlyMap<string, Row>> {
  const folder = mkdtempSync(path.join(tmpdir(), 'ruminate-protocol-'));
  try {
    const file = path.join(folder, 'rows.md');
    writeFileSync(file, commands.map((command) => `| \`${command}\` | | | | |\n`).join(''));
    const { status, stderr } = await runProtocol(['table', file], timeoutMs);
    if (status !== 0) throw new Error(`protocol table: status ${status}: ${stderr}`);
    return new Map(parse(readFileSync(file, 'utf8')).map((row) => [row.command, row]));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function parse(page: string): readonly Row[] {
  return [...page.matchAll(/^\| `([^`]+)` \| [^|]* \| ([\d,]+) \| ([^|]+) \| [\d.]+ \|$/gm)].map(
    ([, command = '', states = '', verdict = '']) => ({ command, states: Number(states.replaceAll(',', '')), verdict }),
  );
}
