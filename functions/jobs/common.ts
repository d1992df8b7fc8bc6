/** What the endpoints of jobs share. */
import { EngineError } from '../../engine/core/errors.ts';
import { problemSchema } from '../problem.ts';
import { jobName } from './request.ts';

const problem = { 'application/problem+json': { schema: problemSchema } };

export const NATIVE_FAILURES = {
  '4XX': { description: 'Refused', content: problem },
  '5XX': { description: 'Failed', content: problem },
} as const;

/** What can be no job's name is no job. @throws EngineError ERR_JOB_NOT_FOUND */
export function jobId(text: string): string {
  if (!jobName.safeParse(text).success) throw new EngineError('ERR_JOB_NOT_FOUND', 'No job of that name.');
  return text;
}
