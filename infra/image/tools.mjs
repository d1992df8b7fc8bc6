/** Commands for the scripts of this folder: run, checked, with what they said when they fail. */
import { spawnSync } from 'node:child_process';

/** A failure the user can act on: one sentence, printed without a stack. */
export class ImageError extends Error {}

const OUTPUT_BYTES_MAX = 64 * 2 ** 20;

/** @returns standard output, trimmed. @throws ImageError with the end of what it said. */
export function run(command, args, { show = false, minutes = 5, ...options } = {}) {
  const { status, signal, stdout, stderr, error } = spawnSync(command, args, { encoding: 'utf8', maxBuffer: OUTPUT_BYTES_MAX, timeout: minutes * 60_000, killSignal: 'SIGKILL', stdio: ['ignore', show ? 'inherit' : 'pipe', show ? 'inherit' : 'pipe'], ...options });
  if (status === 0) return (stdout ?? '').trim();
  throw new ImageError(`${command} ${args.slice(0, 6).join(' ')}… ended with ${signal ?? error?.message ?? status}\n${`${stdout ?? ''}${stderr ?? ''}`.trim().slice(-4_000)}`);
}

export function has(command) {
  return spawnSync('sh', ['-c', `command -v ${command}`], { stdio: 'ignore' }).status === 0;
}

/** @throws ImageError that says what to install. */
export function need(commands) {
  const missing = commands.filter((command) => !has(command));
  if (missing.length > 0) throw new ImageError(`${missing.join(' and ')} ${missing.length === 1 ? 'is' : 'are'} missing: apt-get install ${missing.join(' ')}`);
  if (process.getuid?.() !== 0) throw new ImageError('roots of Debian are made and entered as root');
}
