/** kill -9, at points and at moments. Six seeds; the slow suite has 50, the soak 500. */
import { afterAll } from 'vitest';

import { removeTemporary } from './jobs.ts';
import { describeKills } from './kills.ts';

afterAll(removeTemporary);
describeKills([1, 2, 3, 4, 5, 6]);
