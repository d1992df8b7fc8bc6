/** The contract suite on ElasticMQ with SQS's own limits, fetched here where it is not yet. */
import { ensurePeer } from '../../scripts/peers/build.mjs';
import { describeSqs } from '../contract/sqs.ts';
import { startElasticmq } from '../helpers/elasticmq.ts';

const jars = ensurePeer('elasticmq');
if ('missing' in jars) process.stdout.write(`skipped: SQS on ElasticMQ: ${jars.missing}\n`);
describeSqs('ElasticMQ', 'binary' in jars ? () => startElasticmq(jars.binary) : null);
