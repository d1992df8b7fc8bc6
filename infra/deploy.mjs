#!/usr/bin/env node
/** `npm run deploy -- --stage NAME`: installs what infra needs if it is not there, builds the bundles, and begins (deploy/main.ts). */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const INFRA = path.dirname(fileURLToPath(import.meta.url));
// As of `ruminate` (cli/main.ts).
process.env.AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED ??= 'true';
// Ctrl-C reaches the step too, which ends by itself and says what then.
process.on('SIGINT', () => {});
const run = (command, args, cwd) => spawnSync(command, args, { cwd, stdio: 'inherit' }).status ?? 1;

const steps = [
  () => existsSync(path.join(INFRA, 'node_modules', 'aws-cdk-lib')) ? 0 : run('npm', ['ci', '--no-audit', '--no-fund', '--ignore-scripts', '--loglevel=error'], INFRA),
  () => existsSync(path.join(INFRA, '..', 'dist', 'functions', 'collector')) ? 0 : run(process.execPath, [path.join(INFRA, '..', 'scripts', 'functions.mjs')], path.dirname(INFRA)),
  () => run(process.execPath, ['--import', 'tsx', path.join(INFRA, 'deploy', 'main.ts'), ...process.argv.slice(2)], INFRA),
];
for (const step of steps) {
  process.exitCode = step();
  if (process.exitCode !== 0) break;
}
