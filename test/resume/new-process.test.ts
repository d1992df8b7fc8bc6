/** One cut of every model in a new process; the slow suite has 42 on each store. */
import { afterAll } from 'vitest';

import { removeTemporary } from './jobs.ts';
import { filesystemPlace, hasVersitygw, versitygwPlace } from './places.ts';
import { describeProcesses } from './processes.ts';

afterAll(removeTemporary);
describeProcesses('a directory', 1, filesystemPlace);
if (hasVersitygw) describeProcesses('versitygw', 1, versitygwPlace);
