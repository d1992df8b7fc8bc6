#!/usr/bin/env node
/**
 * `npm run infra:image`: builds infra/image/Dockerfile with buildah and no registry, reports its layers, and runs what came out: as the user of the
 * image, on a read-only root, a server and a worker answer a job; so do the units of infra/systemd under a systemd in a container. Needs root on Debian: apt-get install buildah debootstrap podman runc.
 * Everything is kept under build/image, so that the next time only what has changed is made again. Ends with `N passed, N failed`.
 */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import { ROOT } from '../../scripts/build.mjs';
import { layOut } from './app.mjs';
import { standIns } from './bases.mjs';
import { runImage } from './running.mjs';
import { runUnits } from './systemd.mjs';
import { ImageError, has, need, run } from './tools.mjs';

const FOLDER = path.join(ROOT, 'build', 'image');
const STORAGE = ['--root', path.join(FOLDER, 'storage'), '--runroot', path.join(FOLDER, 'run')];
const VARIANTS = ['cpu', 'cuda'];

const counts = { passed: 0, failed: 0 };
const say = (line) => void process.stdout.write(`${line}\n`);
function check(name, holds, detail = '') {
  counts[holds ? 'passed' : 'failed']++;
  say(`${holds ? 'ok  ' : 'FAIL'} ${name}${holds || detail === '' ? '' : `: ${detail}`}`);
}

const buildah = (args, options) => run('buildah', [...STORAGE, ...args], options);

/** Bytes of every layer: as files, and as the compressed blob that is pulled. */
function layersOf(image) {
  const { OCIv1: { history, rootfs } } = JSON.parse(buildah(['inspect', '--type', 'image', image]));
  const oci = path.join(FOLDER, 'oci');
  rmSync(oci, { recursive: true, force: true });
  buildah(['push', '--quiet', '--compression-format', 'gzip', image, `oci:${oci}:latest`], { minutes: 10 });
  const blob = (digest) => JSON.parse(readFileSync(path.join(oci, 'blobs', 'sha256', digest.split(':')[1]), 'utf8'));
  const [{ digest }] = JSON.parse(readFileSync(path.join(oci, 'index.json'), 'utf8')).manifests;
  const { layers } = blob(digest);
  const unpacked = unpackedBytes();
  const made = history.filter(({ empty_layer: isEmpty }) => isEmpty !== true).map(({ created_by: by = '' }) => by);
  return layers.map(({ size }, i) => ({ from: made[i] ?? '', bytes: unpacked.get(rootfs.diff_ids[i]) ?? null, compressedBytes: size }));
}

/** What the storage knows of its layers: bytes by digest of their contents. */
function unpackedBytes() {
  const file = path.join(FOLDER, 'storage', 'overlay-layers', 'layers.json');
  return new Map(JSON.parse(readFileSync(file, 'utf8')).map((layer) => [layer['diff-digest'], layer['diff-size']]));
}

async function main() {
  need(['buildah', 'debootstrap']);
  mkdirSync(FOLDER, { recursive: true });
  const bases = standIns(path.join(FOLDER, 'bases'), buildah);
  const args = Object.entries(bases).flatMap(([name, image]) => ['--build-arg', `${name}=${image}`]);
  const reports = {};
  for (const variant of VARIANTS) {
    const image = `localhost/ruminate:${variant}`;
    say(`building ${image}`);
    buildah(['build', '--isolation', 'chroot', '--layers', '--format', 'docker', '--ignorefile', path.join(ROOT, 'infra', 'image', 'Dockerfile.dockerignore'), '-f', path.join(ROOT, 'infra', 'image', 'Dockerfile'), '--target', variant, ...args, '-t', image, ROOT], { minutes: 45, show: true });
    check(`${variant}: every step of the Dockerfile ran`, true);
    const layers = layersOf(image);
    const total = (key) => layers.reduce((sum, layer) => sum + (layer[key] ?? 0), 0);
    reports[variant] = { bytes: total('bytes'), compressedBytes: total('compressedBytes'), layers };
    for (const { from, bytes, compressedBytes } of layers) say(`  ${megabytes(bytes)} ${megabytes(compressedBytes)} gzip  ${from.replace(/\s+/g, ' ').slice(0, 110)}`);
    say(`  ${megabytes(total('bytes'))} ${megabytes(total('compressedBytes'))} gzip  in all`);
  }
  writeFileSync(path.join(FOLDER, 'layers.json'), `${JSON.stringify(reports, null, 2)}\n`);
  if (!has('podman') || !has('runc')) return check('the image runs', false, 'podman or runc is missing: apt-get install podman runc');
  await runImage({ storage: STORAGE, folder: FOLDER, image: 'localhost/ruminate:cpu', check, say });
  const product = path.join(FOLDER, 'app');
  await layOut(product, ['countdown']);
  await runUnits({ storage: STORAGE, buildah, base: bases.NODE_IMAGE, product, check, say });
}

function megabytes(bytes) {
  return `${((bytes ?? 0) / 1e6).toFixed(1)} MB`.padStart(9);
}

/** What a run that was stopped has left: containers of the build, and their mounts. Nothing outside its own folder. */
function cleanUp() {
  try {
    buildah(['rm', '--all']);
  } catch {
    // There is no buildah, or nothing was made yet.
  }
  const mounts = readFileSync('/proc/mounts', 'utf8').split('\n').map((line) => line.split(' ')[1] ?? '').filter((at) => at.startsWith(`${FOLDER}/`));
  for (const at of mounts.reverse()) run('umount', ['--lazy', at]);
}

// Ctrl-C ends what runs, and then this goes on to its end.
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => say(`stopping: ${signal}`));
try {
  await main();
} catch (error) {
  check('the image', false, error instanceof ImageError ? error.message : error.stack);
} finally {
  cleanUp();
}
say(`${counts.passed} passed, ${counts.failed} failed`);
process.exitCode = counts.failed === 0 ? 0 : 1;
