/** 500 jobs, killed again and again. */
import { afterAll } from 'vitest';

import { removeTemporary } from '../resume/jobs.ts';
import { describeKills } from '../resume/kills.ts';

afterAll(removeTemporary);
describeKills(Array.from({ length: 500 }, (_, i) => 1_000 + i));
