/** 50 jobs, killed again and again. */
import { afterAll } from 'vitest';

import { removeTemporary } from '../resume/jobs.ts';
import { describeKills } from '../resume/kills.ts';

afterAll(removeTemporary);
describeKills(Array.from({ length: 50 }, (_, i) => 100 + i));
