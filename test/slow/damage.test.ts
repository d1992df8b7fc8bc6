/** Every object of a job, damaged in every way. */
import { describeDamage, prepareDamage } from '../resume/damage.ts';

prepareDamage();
describeDamage(Infinity);
