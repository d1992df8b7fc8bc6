/** SQS on fauxqs, in this process; test/slow/sqs-peers.test.ts has the stricter ElasticMQ. */
import { startFauxqs } from '../helpers/fauxqs.ts';
import { describeSqs } from './sqs.ts';

describeSqs('fauxqs', startFauxqs, { isHere: true });
