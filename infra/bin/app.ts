#!/usr/bin/env node
/** What `cdk` runs: the stage that RUMINATE_STAGE names. `npm run deploy` sets it. */
import { stageOf } from '../config.ts';
import { buildStage } from '../lib/stage.ts';

try {
  const name = process.env.RUMINATE_STAGE ?? '';
  buildStage({ name, config: stageOf(name), ...(process.env.CDK_OUTDIR === undefined ? {} : { outdir: process.env.CDK_OUTDIR }) }).app.synth();
} catch (error) {
  process.stderr.write(`ruminate: ${(error as Error).message}\n`);
  process.exitCode = 1;
}
