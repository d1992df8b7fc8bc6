/**
 * A check in namespaces of its own: a network with nothing but its loopback, a table of hosts, mounts and processes that are gone with it. So that what a
 * deployment says (`http://store:7070`, `/run/secrets/api-keys`, port 8787) is used to the letter, and disturbs nothing on this machine.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import path from 'node:path';

const INSIDE = '--inside';
const UNSHARE = ['--user', '--map-root-user', '--net', '--mount', '--pid', '--fork', '--mount-proc', '--kill-child'];
const MINUTES_MAX = 4;

export const isInside = process.argv.includes(INSIDE);

/** @returns null: this machine has it; else why not. */
export function whyNotIsolated() {
  const { status, error, stderr } = spawnSync('unshare', [...UNSHARE, 'ip', 'link', 'set', 'lo', 'up'], { encoding: 'utf8' });
  return status === 0 ? null : `namespaces cannot be made: ${error?.message ?? stderr.trim()}`;
}

/** Runs the same file again, inside; its output is ours. @returns its exit code. */
export function again() {
  const { status } = spawnSync('unshare', [...UNSHARE, process.execPath, process.argv[1], INSIDE], { stdio: 'inherit', timeout: MINUTES_MAX * 60_000, killSignal: 'SIGKILL' });
  return status ?? 1;
}

/** Inside: names of this machine's loopback, and empty folders over those that are to be written. */
export function furnish({ hosts = [], folders = ['/run'] }) {
  run('ip', ['link', 'set', 'lo', 'up']);
  for (const folder of folders) run('mount', ['-t', 'tmpfs', 'tmpfs', folder]);
  const table = path.join(mkdtempSync('/run/hosts-'), 'hosts');
  writeFileSync(table, `127.0.0.1 localhost ${hosts.join(' ')}\n`);
  run('mount', ['--bind', table, '/etc/hosts']);
}

/** Inside: shows a folder elsewhere too. */
export function mountAt(folder, at) {
  mkdirSync(at, { recursive: true });
  run('mount', ['--bind', folder, at]);
}

function run(command, args) {
  const { status, stderr, error } = spawnSync(command, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${command} ${args.join(' ')}: ${error?.message ?? stderr}`);
}

