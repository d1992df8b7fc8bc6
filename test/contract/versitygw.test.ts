/** S3 on versitygw, where its binary is cached; test/slow/s3-peers.test.ts builds it elsewhere. */
import { existsSync } from 'node:fs';

import { peerPath } from '../../scripts/peers/build.mjs';
import { startVersitygw } from '../helpers/versitygw.ts';
import { describeS3Faults } from './s3-faults.ts';
import { describeS3 } from './s3.ts';

const binary = peerPath('versitygw');
const there = existsSync(binary);
if (!there) process.stdout.write('skipped: S3 on versitygw: `node scripts/peers/build.mjs versitygw` builds it, and npm run test:slow does\n');
describeS3('versitygw', there ? () => startVersitygw(binary) : null);
describeS3Faults('versitygw', there ? () => startVersitygw(binary) : null);
