/**
 * schemathesis (PyPI) against a real server and what it says of itself: whatever is sent, no failure of the server, and no answer that
 * /openapi.json does not promise. Its cases follow from the seed and the document.
 */
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect, test } from 'vitest';

import { serve } from '../helpers/served.ts';
import { ROOT } from '../helpers/setup.ts';

const VERSION = '4.32.5';
const VENV = path.join(ROOT, 'build', 'venv-schemathesis');
const PROGRAM = path.join(VENV, 'bin', 'schemathesis');
const INSTALL_MS_MAX = 5 * 60_000;
const RUN_MS_MAX = 10 * 60_000;

/** Not whether all that fits the document is taken: that a prompt fits a context, or one field needs another, no schema says. */
const CHECKS = [
  'not_a_server_error', 'status_code_conformance', 'content_type_conformance', 'response_headers_conformance', 'response_schema_conformance',
  'negative_data_rejection', 'unsupported_method', 'missing_required_header', 'allow_header_conformance',
];

/** null: it cannot be had here. */
function installed(): string | null {
  try {
    if (!existsSync(PROGRAM)) {
      execFileSync('python3', ['-m', 'venv', VENV], { timeout: INSTALL_MS_MAX, stdio: 'pipe' });
      execFileSync(path.join(VENV, 'bin', 'python'), ['-m', 'pip', 'install', '-q', `schemathesis==${VERSION}`], { timeout: INSTALL_MS_MAX, stdio: 'pipe' });
    }
    return PROGRAM;
  } catch (error) {
    rmSync(VENV, { recursive: true, force: true });
    process.stdout.write(`skipped: PyPI schemathesis ${VERSION} cannot be had here: ${error instanceof Error ? error.message.slice(0, 300) : String(error)}\n`);
    return null;
  }
}

const program = installed();

test.skipIf(program === null)('whatever a client sends, no answer is a failure of the server or another than the document promises', { timeout: RUN_MS_MAX }, async () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'ruminate-schemathesis-'));
  try {
    await using server = await serve(path.join(folder, 'store'), '--log-level', 'error');
    const args = [
      'run', `${server.url}/openapi.json`, '--phases', 'examples,coverage,fuzzing', '--max-examples', '3', '--seed', '1', '--no-shrink', '--request-timeout', '60',
      '--checks', CHECKS.join(), '--continue-on-failure', '--no-color',
    ];
    const env = { ...process.env, SCHEMATHESIS_HOOKS: 'schemathesis_hooks', PYTHONPATH: path.join(ROOT, 'test', 'helpers'), PYTHONDONTWRITEBYTECODE: '1' };
    const { code, output } = await new Promise<{ readonly code: number | null; readonly output: string }>((resolve, reject) => {
      const child = spawn(program ?? '', args, { cwd: folder, env, stdio: ['ignore', 'pipe', 'pipe'] });
      let output = '';
      for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => { output += chunk.toString(); });
      child.once('error', reject);
      child.once('close', (code) => resolve({ code, output }));
    });
    process.stdout.write(output.slice(output.lastIndexOf('= SUMMARY =')));
    expect(code, `${output}\n${server.log}`).toBe(0);
    const [, selected, all] = /Selected: (\d+)\/(\d+)/.exec(output) ?? [];
    expect(selected).toBe(all);
    expect(Number(/([\d,]+) generated/.exec(output)?.[1]?.replaceAll(',', ''))).toBeGreaterThan(1_000);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
