/** Which process something on disk belongs to, so that others know whether it is still in use after a kill. */
import { readFileSync, readlinkSync } from 'node:fs';
import { hostname } from 'node:os';

/** Of nobody: may be taken over. */
export const NOBODY = 'nobody';

let own: string | undefined;

/**
 * `<pid>-<start>-<namespace>`: process ids are used again, so the start time belongs to the name, and another container or machine has processes
 * of the same ids.
 */
export function thisOwner(): string {
  return (own ??= `${process.pid}-${startOf(process.pid) ?? 0}-${namespace()}`);
}

/** `foreign`: of another container or machine, or of this one before it was started anew: such processes cannot be looked up; whoever asks decides by how long nothing has happened. */
export type OwnerState = 'alive' | 'dead' | 'foreign';

export function stateOf(owner: string): OwnerState {
  if (owner === own) return 'alive';
  const match = /^(\d+)-(\d+)-(\d+)$/.exec(owner);
  if (match === null) return 'dead';
  const [, pid, start, space] = match;
  if (space !== namespace()) return 'foreign';
  const alive = start === '0' ? runs(Number(pid)) : startOf(Number(pid)) === start;
  return alive ? 'alive' : 'dead';
}

/** What a head names as its owner: this process, so that the next one on this machine sees at once whether it still lives. */
export function ownerHint(): string {
  return `${thisOwner()}@${hostname().replace(/[^A-Za-z0-9.-]/g, '').slice(0, 64)}`;
}

/** Whether the process that a head names as its owner is known to be gone. false: it may live, here or elsewhere. */
export function isOwnerGone(owner: string): boolean {
  return isOwnerHere(owner) && stateOf(nameOf(owner)) === 'dead';
}

/** Whether a head's owner is another process of this machine, where it can be seen whether it lives. */
export function isOwnerHere(owner: string): boolean {
  const [, host] = owner.split(/[@,]/);
  return ownerHint().split('@')[1] === host && nameOf(owner) !== thisOwner() && stateOf(nameOf(owner)) !== 'foreign';
}

function nameOf(owner: string): string {
  return owner.split(/[@,]/)[0] ?? '';
}

/** Clock ticks since boot, from /proc; null: no such process, or no /proc. */
function startOf(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The second field is the command in parentheses and may hold anything; state is the third, start the 22nd.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    // A zombie has ended; only its parent has not looked.
    return fields[0] === 'Z' ? null : (fields[19] ?? null);
  } catch {
    return null;
  }
}

function runs(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

let space: string | undefined;
/** Every Linux numbers its first namespace alike, and machines made from one image share a hostname: what a kernel drew when it began tells them apart. */
function namespace(): string {
  try {
    space ??= `${/\d+/.exec(readlinkSync('/proc/self/ns/pid'))?.[0] ?? 0}${bootNumber()}`;
  } catch {
    space = '0';
  }
  return space;
}

const BOOT_DIGITS = 15;
/** 48 of its random bits. */
function bootNumber(): string {
  const id = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').replace(/[^0-9a-f]/g, '').slice(0, 12);
  return `${Number.parseInt(id, 16)}`.padStart(BOOT_DIGITS, '0');
}
