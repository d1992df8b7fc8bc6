/** Before all tests: every stage once, offline. What AwsSolutions or CloudFormation's rules find ends it here. */
import { rmSync } from 'node:fs';

const isOurs = process.env.RUMINATE_INFRA_STAGES === undefined;
const { EVERY, SYNTHESISED, synthesise } = await import('./synthesised.ts');

export default function setup(): () => void {
  for (const name of EVERY) synthesise(name);
  // Nobody looks at them afterwards, unless somebody said where they are to be.
  return () => {
    if (isOurs) rmSync(SYNTHESISED, { recursive: true, force: true });
  };
}
