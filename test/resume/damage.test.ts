/** The newest object of each kind, flipped and gone; the slow suite has all objects and every damage. */
import { describeDamage, prepareDamage } from './damage.ts';

prepareDamage();
describeDamage(1, ['with a byte flipped', 'gone']);
