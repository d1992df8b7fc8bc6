/** The contract suite on MinIO, which takes longer to build than the slow suite has. */
import { ensurePeer } from '../../scripts/peers/build.mjs';
import { describeS3 } from '../contract/s3.ts';
import { describeS3Faults } from '../contract/s3-faults.ts';
import { startMinio } from '../helpers/minio.ts';

const built = ensurePeer('minio');
if (!('binary' in built)) process.stdout.write(`skipped: S3 on MinIO: ${built.missing}\n`);
const minio = 'binary' in built ? () => startMinio(built.binary) : null;
describeS3('MinIO', minio);
describeS3Faults('MinIO', minio);
