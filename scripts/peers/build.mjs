#!/usr/bin/env node
/**
 * Builds the S3 servers that tests run against, from the Go module proxy, and fetches the SQS server, from Maven Central:
 * `node scripts/peers/build.mjs versitygw|minio|elasticmq`. Kept in ${XDG_CACHE_HOME:-~/.cache}/ruminate/peers between runs and checkouts.
 * Prints the path of the binary, or of the folder of jars.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, realpathSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const BUILD_MS_MAX = 45 * 60_000;

/** `package@version` for `go install`, or `group:artifact:version` for Maven, and about how long a build takes on a busy machine with two cores. */
export const PEERS = {
  // Apache-2.0, maintained.
  versitygw: { module: 'github.com/versity/versitygw/cmd/versitygw@v1.8.0', minutes: 6 },
  // AGPL-3.0, run as a process only; its repository is archived, this is the last commit.
  minio: { module: 'github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c', minutes: 15 },
  // Apache-2.0, maintained; needs Java.
  elasticmq: { artifact: 'org.elasticmq:elasticmq-server_2.13:1.7.1', minutes: 1 },
};

/** Where the binary is or will be. */
export function peerPath(name) {
  const cache = process.env.XDG_CACHE_HOME || path.join(os.homedir(), '.cache');
  const { module, artifact } = PEERS[name];
  return path.join(cache, 'ruminate', 'peers', `${name}-${module?.split('@')[1] ?? artifact.split(':')[2]}`);
}

/** Builds the peer unless it is there. @returns {{ binary: string } | { missing: string }} why there is none, for "skipped: …". */
export function ensurePeer(name) {
  const binary = peerPath(name);
  if (existsSync(binary)) return { binary };
  if (PEERS[name].artifact !== undefined) return fetchJars(name, binary);
  if (spawnSync('go', ['version'], { stdio: 'ignore' }).status !== 0) return { missing: `Go is needed to build ${name}` };
  const { module, minutes } = PEERS[name];
  process.stderr.write(`ruminate: building ${name} (once, about ${minutes} minutes)\n`);
  // Another run may be building it too: each into a folder of its own, and the last to finish wins.
  const bin = path.join(path.dirname(binary), `.build-${process.pid}`);
  mkdirSync(bin, { recursive: true });
  try {
    const environment = { ...process.env, GOBIN: bin, CGO_ENABLED: '0', GOFLAGS: '-p=1' };
    const result = spawnSync('go', ['install', '-trimpath', '-ldflags=-s -w', module], { env: environment, encoding: 'utf8', timeout: BUILD_MS_MAX });
    if (result.status !== 0) return { missing: `${name} did not build: ${(result.stderr ?? '').trim().split('\n').at(-1) ?? result.error?.message}` };
    renameSync(path.join(bin, name), binary);
    return { binary };
  } finally {
    rmSync(bin, { recursive: true, force: true });
  }
}

/** The artifact with all it needs. */
function fetchJars(name, folder) {
  for (const tool of ['java', 'mvn']) if (spawnSync(tool, ['-version'], { stdio: 'ignore' }).status !== 0) return { missing: `${tool === 'mvn' ? 'Maven' : 'Java'} is needed for ${name}` };
  const { artifact, minutes } = PEERS[name];
  process.stderr.write(`ruminate: fetching ${name} (once, about ${minutes} minutes)\n`);
  const [groupId, artifactId, version] = artifact.split(':');
  const build = path.join(path.dirname(folder), `.build-${process.pid}`);
  mkdirSync(build, { recursive: true });
  try {
    writeFileSync(path.join(build, 'pom.xml'), `<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>ruminate</groupId><artifactId>peers</artifactId><version>1</version><packaging>pom</packaging>
<dependencies><dependency><groupId>${groupId}</groupId><artifactId>${artifactId}</artifactId><version>${version}</version></dependency></dependencies></project>
`);
    const result = spawnSync('mvn', ['-q', '-B', 'dependency:copy-dependencies', '-DoutputDirectory=jars'], { cwd: build, encoding: 'utf8', timeout: BUILD_MS_MAX });
    const jars = path.join(build, 'jars');
    if (result.status !== 0 || readdirSync(jars).length === 0) return { missing: `${name} was not fetched: ${(result.stdout ?? '').trim().split('\n').at(-1) || result.error?.message}` };
    // Another run may have been first.
    if (!existsSync(folder)) renameSync(jars, folder);
    return { binary: folder };
  } finally {
    rmSync(build, { recursive: true, force: true });
  }
}

if (process.argv[1] !== undefined && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const name = process.argv[2] ?? '';
  const result = Object.hasOwn(PEERS, name) ? ensurePeer(name) : { missing: `choose from ${Object.keys(PEERS).join(', ')}` };
  if ('missing' in result) {
    process.stderr.write(`ruminate: ${result.missing}\n`);
    process.exitCode = 1;
  } else {
    process.stdout.write(`${result.binary}\n`);
  }
}
