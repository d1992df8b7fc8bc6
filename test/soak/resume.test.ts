/** Every cut of the runs of test/resume: minutes for each model. */
import { afterAll } from 'vitest';

import { describeCuts } from '../resume/cuts.ts';
import { removeTemporary } from '../resume/jobs.ts';

afterAll(removeTemporary);
describeCuts(1);
