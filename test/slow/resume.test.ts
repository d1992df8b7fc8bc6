/** Every fifth cut of the runs of test/resume (the soak takes every one), 42 of them in a new process on each kind of store. */
import { afterAll } from 'vitest';

import { describeCuts } from '../resume/cuts.ts';
import { removeTemporary } from '../resume/jobs.ts';
import { filesystemPlace, hasVersitygw, versitygwPlace } from '../resume/places.ts';
import { describeProcesses } from '../resume/processes.ts';

afterAll(removeTemporary);
describeCuts(5);
describeProcesses('a directory', 14, filesystemPlace);
if (hasVersitygw) describeProcesses('versitygw', 14, versitygwPlace);
