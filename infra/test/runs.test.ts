/** Two runs in one checkout. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';

import { ROOT } from '../lib/bundles.ts';
import { SYNTHESISED } from './synthesised.ts';

const folder = mkdtempSync(path.join(tmpdir(), 'ruminate-infra-runs-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test('tests that somebody runs have stages of their own, which nobody else writes', () => {
  expect(existsSync(SYNTHESISED)).toBe(true);
  const another = spawnSync(process.execPath, ['--import', 'tsx', '-p', 'import("./test/synthesised.ts").then(({ SYNTHESISED }) => console.log(SYNTHESISED)), ""'], { cwd: path.join(ROOT, 'infra'), encoding: 'utf8', env: { ...process.env, RUMINATE_INFRA_STAGES: undefined } });
  expect(another.stdout.trim()).toMatch(/build\/infra\/stages-\d+$/);
  expect(another.stdout.trim()).not.toBe(SYNTHESISED);
});

describe('the checks', () => {
  const file = path.join(folder, '.lock');
  const take = () => spawnSync(process.execPath, ['--input-type=module', '-e', `import { takeLock } from ${JSON.stringify(path.join(ROOT, 'infra', 'checks', 'lib', 'lock.mjs'))}; takeLock(process.argv[1]); console.log('taken');`, file], { encoding: 'utf8' });

  test('of one checkout run once at a time, and say who runs them', () => {
    writeFileSync(file, String(process.pid));
    const { status, stdout, stderr } = take();
    expect([status, stdout]).toEqual([1, '']);
    expect(stderr).toContain(`the checks of this checkout are run by process ${process.pid} now`);
    expect(readFileSync(file, 'utf8')).toBe(String(process.pid));
  });

  test('that were killed are in nobody\'s way, and those that end leave nothing', () => {
    const { pid } = spawnSync(process.execPath, ['-e', '']);
    for (const left of [String(pid), '']) {
      writeFileSync(file, left);
      expect(take()).toMatchObject({ status: 0, stdout: 'taken\n' });
      expect(existsSync(file)).toBe(false);
    }
  });
});
