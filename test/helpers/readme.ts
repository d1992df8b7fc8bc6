/** What README tells a reader to type, block by block. */
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync, symlinkSync } from 'node:fs';
import path from 'node:path';

import { ROOT } from './setup.ts';

export interface Block {
  /** '' and sh are commands; ts is a program. */
  readonly language: string;
  readonly text: string;
}

export function blocksOf(markdown: string): readonly Block[] {
  return [...markdown.matchAll(/^```(\w*)\n([\s\S]*?)^```$/gm)].map(([, language = '', text = '']) => ({ language, text }));
}

/** One command an entry: lines that end in a backslash go on. */
export function commandsOf({ text }: Block): readonly string[] {
  return text.replaceAll(/\\\n\s*/g, '').split('\n').filter((line) => line.trim() !== '');
}

/** The checkout as somebody has just built it, in a folder of its own: what is typed there may write what it likes. */
export function freshCheckout(folder: string): void {
  const files = execFileSync('git', ['ls-files', '-z'], { cwd: ROOT, encoding: 'utf8', maxBuffer: 64 << 20 }).split('\0').filter((file) => file !== '');
  for (const file of files) {
    mkdirSync(path.dirname(path.join(folder, file)), { recursive: true });
    // Times stay: what is built is newer than what it was built from.
    cpSync(path.join(ROOT, file), path.join(folder, file), { preserveTimestamps: true, verbatimSymlinks: true });
  }
  cpSync(path.join(ROOT, 'dist'), path.join(folder, 'dist'), { recursive: true, preserveTimestamps: true });
  for (const name of ['node_modules', 'build']) symlinkSync(path.join(ROOT, name), path.join(folder, name));
}

export const README = readFileSync(path.join(ROOT, 'README.md'), 'utf8');
