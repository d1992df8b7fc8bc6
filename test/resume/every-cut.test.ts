/** Some cuts of every kind; the slow suite has all. */
import { afterAll } from 'vitest';

import { describeCuts } from './cuts.ts';
import { removeTemporary } from './jobs.ts';

afterAll(removeTemporary);
describeCuts(43);
