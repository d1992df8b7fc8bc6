/** Before all tests: every stage once, offline. What AwsSolutions or CloudFormation's rules find ends it here. */
import { EVERY, synthesise } from './synthesised.ts';

export default function setup(): void {
  for (const name of EVERY) synthesise(name);
}
