/** versitygw, an S3 gateway over a folder, which keeps connections open as S3 does: `await using peer = await startVersitygw(binary)`. scripts/peers/build.mjs makes the binary. */
import { startS3Peer, type S3Peer } from './s3-peer.ts';

export function startVersitygw(binary: string, folder?: string): Promise<S3Peer> {
  return startS3Peer({
    binary,
    arguments: (port, data) => ['--port', `127.0.0.1:${port}`, '--quiet', '--keep-alive', 'posix', data],
    environment: { ROOT_ACCESS_KEY: 'test', ROOT_SECRET_KEY: 'testtest' },
  }, folder);
}
