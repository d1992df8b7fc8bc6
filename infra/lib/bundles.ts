/** Files that the stacks carry: what `npm run build:functions` made. */
import { existsSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');

export class Bundles {
  constructor(readonly folder = path.join(ROOT, 'dist', 'functions')) {}

  /** @throws Error */
  at(name: string): string {
    const folder = path.join(this.folder, name);
    for (const file of ['index.mjs']) {
      if (!existsSync(path.join(folder, file))) throw new Error(`There is no bundle ${name}/${file}: run \`npm run build:functions\` first.`);
    }
    return folder;
  }

  has(name: string): boolean {
    return existsSync(path.join(this.folder, name, 'index.mjs'));
  }

  /** Those that answer requests. */
  get fronts(): readonly string[] {
    if (!existsSync(this.folder)) throw new Error('There are no bundles: run `npm run build:functions` first.');
    return readdirSync(this.folder).filter((name) => existsSync(path.join(this.folder, name, 'front.mjs'))).sort();
  }
}
