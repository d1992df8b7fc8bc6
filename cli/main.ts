/** The `ruminate` command: one subcommand a file; here they meet, and every failure becomes one line and an exit code. */
import { setMaxListeners } from 'node:events';
import { CommanderError } from 'commander';

import { checkpointCommand } from './checkpoint.ts';
import { endWithReader, exitCodeOf, failureLine } from './exit.ts';
import { keyCommand } from './key.ts';
import { gcCommand } from './gc.ts';
import { lambdaCommand } from './lambda.ts';
import { modelCommand } from './model.ts';
import { modelsCommand } from './models.ts';
import { command, usageExit } from './options.ts';
import { queueCommand } from './queue.ts';
import { quoteCommand } from './quote.ts';
import { extendCommand, forkCommand, resumeCommand } from './resume.ts';
import { runCommand } from './run.ts';
import { serveCommand } from './serve.ts';
import { versionOf } from './version.ts';
import { workerCommand } from './worker.ts';

const LISTENERS_MAX = 1_000;

const program = command('ruminate')
  .description('Long reasoning over compressed KV caches: one prompt, W chains, one budget of KV reads, one answer.')
  .version(versionOf(), '-V, --version')
  .addCommand(runCommand())
  .addCommand(quoteCommand())
  .addCommand(resumeCommand())
  .addCommand(forkCommand())
  .addCommand(extendCommand())
  .addCommand(serveCommand())
  .addCommand(workerCommand())
  .addCommand(queueCommand())
  .addCommand(checkpointCommand())
  .addCommand(gcCommand())
  .addCommand(modelCommand())
  .addCommand(modelsCommand())
  .addCommand(keyCommand())
  .addCommand(lambdaCommand(), { hidden: true })
  .addHelpText(
    'after',
    `
Exit status: 0 done, 1 failed, 2 wrong options or store, 130 interrupted. A failure is one line on stderr: ruminate: ERR_CODE: sentence.

Examples:
  $ ruminate run "4 20 8 13 target 59"
  $ ruminate run "4 20 8 13 target 59" --cr 8 --length 512 --width 4 --kv-read-budget 58000 --json
  $ ruminate serve --port 8787
  $ ruminate model inspect countdown@cr8
  $ ruminate models pull s3://models/countdown`,
  );

// Which SDK it is is ours to choose, and the Node versions that it still runs on are tested: nobody here can do what its warning asks for.
process.env.AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED ??= 'true';
// Ranges that are read at once and tried again all listen to one signal, each for as long as it lasts: Node would call eleven of them a leak.
setMaxListeners(LISTENERS_MAX);
endWithReader(process.stdout);
try {
  await program.parseAsync();
} catch (error) {
  // Commander has already said what was wrong.
  if (error instanceof CommanderError) {
    process.exitCode = usageExit(error.code);
  } else {
    process.stderr.write(`${failureLine(error)}\n`);
    process.exitCode = exitCodeOf(error);
  }
}
