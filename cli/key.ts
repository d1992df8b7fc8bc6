/** `ruminate key …`: the key that stored jobs are sealed under. */
import path from 'node:path';
import type { Command } from 'commander';

import { makeKeyFile } from '../engine/adapters/key-file.ts';
import { command } from './options.ts';

export function keyCommand(): Command {
  return command('key')
    .description('make a key to encrypt stored jobs under')
    .addCommand(newCommand());
}

function newCommand(): Command {
  return command('new')
    .description('write a new key of 32 bytes to a file that only you can read; a file that is there is never overwritten')
    .argument('<file>', 'where; keep a copy elsewhere: without the key nothing that it sealed can be read')
    .option('--json', 'one JSON object')
    .addHelpText('after', '\nExamples:\n  $ ruminate key new ~/.ruminate.key\n  $ export RUMINATE_KEY=file:$HOME/.ruminate.key')
    .action(async (file: string, options: { json?: boolean }) => {
      const { id } = await makeKeyFile(file);
      const url = `file:${path.resolve(file)}`;
      process.stdout.write(options.json ? `${JSON.stringify({ id, url })}\n` : `${id}\nto use it, set RUMINATE_KEY to ${url}\n`);
    });
}
