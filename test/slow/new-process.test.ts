/** One cut of every model in a new process; the slow suite has 42 on each store. */
import { afterAll } from 'vitest';

import { removeTemporary } from '../resume/jobs.ts';
import { filesystemPlace, hasVersitygw, versitygwPlace } from '../resume/places.ts';
import { describeProcesses } from '../resume/processes.ts';

afterAll(removeTemporary);
describeProcesses('a directory', 1, filesystemPlace);
if (hasVersitygw) describeProcesses('versitygw', 1, versitygwPlace);
