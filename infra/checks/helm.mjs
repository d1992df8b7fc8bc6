#!/usr/bin/env node
/**
 * The chart: Helm accepts it, every manifest that it makes is what Kubernetes and KEDA allow, and the commands and environment of its pods, to the letter,
 * are processes that answer a job.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parse, parseAllDocuments } from 'yaml';

import { ROOT } from '../../scripts/build.mjs';
import { ensurePeer } from '../../scripts/peers/build.mjs';
import { checks } from './lib/check.mjs';
import { again, furnish, isInside, whyNotIsolated } from './lib/isolated.mjs';
import { APP, Deployment, keysFile, layOutApp, sameAsQuietRun } from './lib/platform.mjs';
import { tool } from './lib/tools.mjs';

const CHART = path.join(ROOT, 'infra', 'helm', 'ruminate');
const MANIFESTS = path.join(ROOT, 'build', 'app', 'manifests.json');
/** The oldest that the chart says it is for, and the newest that there are schemas of. */
const VERSIONS = ['1.29.0', '1.33.0', '1.37.0'];
const CASES = readdirSync(path.join(CHART, 'ci')).sort();
/** What an operator makes beside the chart. */
const SECRETS = { 'ruminate-s3': { AWS_ACCESS_KEY_ID: 'an-access-key', AWS_SECRET_ACCESS_KEY: 'a-secret-key' } };
const KEY = 'a-key-for-a-check';
const { check, skip, run } = checks();

async function outside() {
  await check('images of others are pinned as bases.json has them', () => {
    const { elasticmq, versitygw } = parse(readFileSync(path.join(CHART, 'values.yaml'), 'utf8'));
    const pins = JSON.parse(readFileSync(path.join(ROOT, 'infra', 'image', 'bases.json'), 'utf8')).services.map(({ image, digest }) => `${image}@${digest}`);
    for (const { image } of [elasticmq, versitygw]) if (!pins.includes(image)) throw new Error(image);
  });
  const helm = tool('helm');
  if ('missing' in helm) return void skip('the chart', helm.missing);
  const ask = (...args) => spawnSync(helm.path, args, { encoding: 'utf8' });
  const template = (values, version = VERSIONS[1], ...more) => ask('template', 'jobs', CHART, '--kube-version', version, '-f', path.join(CHART, 'ci', values), ...more);
  for (const values of CASES) {
    const { status, stdout } = ask('lint', '--strict', '--kube-version', VERSIONS[1], CHART, '-f', path.join(CHART, 'ci', values));
    await check(`helm lint --strict, ${values}`, status === 0, stdout);
  }
  await check('without store or keys it says what is missing', () => {
    for (const [set, said] of [['store=s3://b/p', /apiKeysSecret/], ['apiKeysSecret=k', /store/], ['stores=x', /additional properties|not allowed/i]]) {
      const { status, stderr } = ask('template', 'jobs', CHART, '--kube-version', VERSIONS[1], '--set', set);
      if (status === 0 || !said.test(stderr)) throw new Error(`${set}: ${stderr}`);
    }
  });
  await allowed(template);
  const manifests = Object.fromEntries(CASES.map((values) => [values, parseAllDocuments(template(values).stdout).map((document) => document.toJS()).filter((one) => one !== null)]));
  await check('every pod is no root, has a read-only root, no capability and no token', () => pods(Object.values(manifests).flat()).forEach(isLocked));
  await check('KEDA scales workers from zero by both queues, counting what runs', () => {
    const [{ spec: { minReplicaCount: min, triggers } }] = manifests['aws.yaml'].filter(({ kind }) => kind === 'ScaledObject');
    if (min !== 0 || triggers.length !== 2 || triggers.some(({ type, metadata }) => type !== 'aws-sqs-queue' || metadata.scaleOnInFlight !== 'true')) throw new Error(JSON.stringify(triggers));
    const { spec } = manifests['aws.yaml'].find(({ kind, metadata: { name } }) => kind === 'Deployment' && name.endsWith('-worker'));
    if ('replicas' in spec) throw new Error('the Deployment says how many there are, against KEDA');
  });
  await check('a GPU is asked for by its resource', () => manifests['gpu.yaml'].some(({ spec }) => spec?.template?.spec.containers[0].resources.limits?.['nvidia.com/gpu'] === 1));
  for (const peer of ['versitygw', 'elasticmq']) {
    const found = ensurePeer(peer);
    if ('missing' in found) return void skip('its environment', found.missing);
  }
  const why = whyNotIsolated();
  if (why !== null) return void skip('its environment', why);
  await layOutApp();
  writeFileSync(MANIFESTS, JSON.stringify(manifests['one-box.yaml']));
  await check('its commands and environment answer a job (above)', again() === 0);
}

/** By kubeconform, against schemas that know every field. */
async function allowed(template) {
  const [kubeconform, schemas, keda] = ['kubeconform', 'kubernetes-schemas', 'keda'].map(tool);
  const missing = [kubeconform, schemas, keda].find((found) => 'missing' in found);
  if (missing !== undefined) return void skip('kubeconform', missing.missing);
  const folder = mkdtempSync(path.join(tmpdir(), 'ruminate-schemas-'));
  try {
    for (const file of readdirSync(keda.path)) writeCrd(folder, parse(readFileSync(path.join(keda.path, file), 'utf8')));
    for (const version of VERSIONS) writeKinds(path.join(folder, `v${version}`), path.join(schemas.path, 'kubernetes_validate', 'kubernetes-json-schema', `v${version}-local-strict`));
    const locations = ['{{.NormalizedKubernetesVersion}}/{{.ResourceKind}}{{.KindSuffix}}.json', '{{.ResourceKind}}{{.KindSuffix}}.json'].flatMap((file) => ['-schema-location', path.join(folder, file)]);
    const validate = (text, version) => spawnSync(kubeconform.path, ['-strict', '-summary', '-kubernetes-version', version, ...locations], { input: text, encoding: 'utf8' });
    for (const version of VERSIONS) {
      for (const values of CASES) {
        const { status, stdout, stderr } = validate(template(values, version).stdout, version);
        await check(`Kubernetes ${version} and KEDA 2.21 allow what ${values} makes`, status === 0 && /Valid: [1-9]\d*, Invalid: 0, Errors: 0, Skipped: 0/.test(stdout), stdout + stderr);
      }
    }
    const text = template('one-box.yaml').stdout;
    for (const [field, wrong] of [['readOnlyRootFilesystem', 'readOnlyRootFileSystem'], ['pollingInterval', 'pollingIntervall']]) {
      const { stdout } = validate(text.replace(field, wrong), VERSIONS[1]);
      await check(`${wrong} would be found`, stdout.includes('Invalid: 1,') && stdout.includes(wrong), stdout);
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Schemas of Kubernetes' own kinds, which would find each other by an address on the web: here, by their folder. */
function writeKinds(to, from) {
  mkdirSync(to);
  for (const file of readdirSync(from)) {
    const { $id: _, ...schema } = JSON.parse(readFileSync(path.join(from, file), 'utf8'));
    writeFileSync(path.join(to, file), JSON.stringify(schema).replaceAll('"/api/_definitions.json', '"_definitions.json'));
  }
}

/** The schema that a cluster has of a kind that is not its own; like a cluster it knows no field beside. */
function writeCrd(folder, { spec: { group, names: { kind }, versions } }) {
  const closed = (schema) => {
    if (schema === null || typeof schema !== 'object') return schema;
    if (Array.isArray(schema)) return schema.map(closed);
    const copy = Object.fromEntries(Object.entries(schema).map(([key, value]) => [key, closed(value)]));
    if (copy.type === 'object' && copy.properties !== undefined && copy.additionalProperties === undefined && copy['x-kubernetes-preserve-unknown-fields'] !== true) copy.additionalProperties = false;
    return copy;
  };
  for (const { name, schema: { openAPIV3Schema: schema } } of versions) {
    const made = closed(schema);
    made.properties.metadata = { type: 'object' };
    writeFileSync(path.join(folder, `${kind.toLowerCase()}-${group.split('.')[0]}-${name}.json`), JSON.stringify(made));
  }
}

const pods = (manifests) => manifests.map(({ spec }) => spec?.template?.spec).filter((pod) => pod?.containers !== undefined);

function isLocked({ securityContext: pod, automountServiceAccountToken: token, containers }) {
  for (const { name, securityContext: own } of containers) {
    if (pod.runAsNonRoot !== true || pod.seccompProfile.type !== 'RuntimeDefault' || token !== false || own.readOnlyRootFilesystem !== true || own.allowPrivilegeEscalation !== false || own.capabilities.drop[0] !== 'ALL') throw new Error(name);
  }
}

async function inside(deployment) {
  const manifests = JSON.parse(readFileSync(MANIFESTS, 'utf8'));
  const named = (kind, end) => manifests.find((one) => one.kind === kind && one.metadata.name.endsWith(end));
  furnish({ hosts: manifests.filter(({ kind }) => kind === 'Service').map(({ metadata: { name } }) => name) });
  const containerOf = (kind, end) => named(kind, end).spec.template.spec.containers[0];
  const envOf = ({ env = [] }) => Object.fromEntries(env.map(({ name, value, valueFrom }) => [name, value ?? SECRETS[valueFrom.secretKeyRef.name][valueFrom.secretKeyRef.key]]));
  const [api, worker, store] = [containerOf('Deployment', '-api'), containerOf('Deployment', '-worker'), containerOf('StatefulSet', '-store')];
  deployment.startStore(store.args, envOf(store), store.volumeMounts.map(({ mountPath }) => path.basename(mountPath)));
  deployment.startQueue(named('ConfigMap', '-queue').data['elasticmq.conf']);
  await Promise.all([deployment.listens(7070, 'store'), deployment.listens(9324, 'queue')]);
  const keys = api.args[api.args.indexOf('--api-keys') + 1];
  mkdirSync(path.dirname(keys), { recursive: true });
  writeFileSync(keys, keysFile(KEY));
  const ruminate = [process.execPath, path.join(APP, 'bin', 'ruminate.mjs')];
  // Where the image keeps models, and its port for health: here all have one network.
  const image = { RUMINATE_CACHE: deployment.folder, RUMINATE_METRICS_PORT: '9464' };
  const front = deployment.start('api', [...ruminate, ...api.args], { ...image, ...envOf(api) });
  const back = deployment.start('worker', [...ruminate, ...worker.args], { ...image, ...envOf(worker) });
  await check('the pods of API and worker answer a job over those of store and queue, as a quiet run does', async () => {
    sameAsQuietRun(await deployment.answer({ url: 'http://127.0.0.1:8787', key: KEY }));
  });
  await check('the queues that KEDA asks are there, and say what it wants to know', async () => {
    for (const { metadata: { queueURL, awsEndpoint } } of named('ScaledObject', '-worker').spec.triggers) {
      const response = await fetch(awsEndpoint, { method: 'POST', headers: { 'content-type': 'application/x-www-form-urlencoded' }, body: new URLSearchParams({ Action: 'GetQueueAttributes', QueueUrl: queueURL, 'AttributeName.1': 'All' }) });
      const text = await response.text();
      if (!response.ok || !text.includes('ApproximateNumberOfMessagesNotVisible')) throw new Error(`${queueURL}: ${response.status} ${text}`);
    }
  });
  await check('SIGTERM ends both with 0', async () => (await deployment.stop(front, back)).every((code) => code === 0), `${front.log.slice(-300)}${back.log.slice(-300)}`);
}

await run(() => (isInside ? Deployment.during(inside) : outside()), { isPart: isInside });
