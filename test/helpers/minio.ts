/** MinIO, stricter than most: `await using peer = await startMinio(binary)`. scripts/peers/build.mjs makes the binary. */
import { startS3Peer, type S3Peer } from './s3-peer.ts';

export function startMinio(binary: string): Promise<S3Peer> {
  return startS3Peer({
    binary,
    arguments: (port, data) => ['server', data, '--address', `127.0.0.1:${port}`, '--quiet'],
    environment: { MINIO_ROOT_USER: 'test', MINIO_ROOT_PASSWORD: 'testtest', MINIO_BROWSER: 'off', MINIO_UPDATE: 'off' },
  });
}
