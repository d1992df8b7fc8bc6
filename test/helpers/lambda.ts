/**
 * A Lambda function behind its Function URL on this machine: AWS's own runtime client for Node (aws-lambda-ric) in a process of its own, over the
 * documented runtime API, with the bundle as its handler. The URL takes HTTP, makes events of payload format 2.0 of it, and streams the answer
 * as InvokeMode RESPONSE_STREAM does. The address of the Invoke API takes an event as it is. https://docs.aws.amazon.com/lambda/latest/dg/runtimes-custom.html
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { type IncomingMessage, type Server, type ServerResponse, createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import os from 'node:os';
import path from 'node:path';

const RIC = 'aws-lambda-ric@3.3.0';
const RIC_BYTES_MS_MAX = 120_000;
const START_MS_MAX = 30_000;
const DEADLINE_MS = 120_000;
const API = '/2018-06-01/runtime';
/** Between the metadata and the body of an answer. */
const DELIMITER = Buffer.alloc(8);

/** Its folder, kept with the other peers; null: the registry was not reached. */
export function ensureRic(): string | null {
  const cache = path.join(process.env.XDG_CACHE_HOME || path.join(os.homedir(), '.cache'), 'ruminate', 'peers');
  const folder = path.join(cache, RIC.replace('@', '-'));
  if (existsSync(path.join(folder, 'dist', 'index.mjs'))) return folder;
  mkdirSync(cache, { recursive: true });
  const made = mkdtempSync(path.join(cache, '.ric-'));
  try {
    // The package alone: installing it would compile curl.
    const packed = spawnSync('npm', ['pack', RIC, '--silent', '--pack-destination', made], { encoding: 'utf8', timeout: RIC_BYTES_MS_MAX });
    const archive = packed.stdout.trim().split('\n').at(-1) ?? '';
    if (packed.status !== 0 || spawnSync('tar', ['xzf', path.join(made, archive), '-C', made], { timeout: RIC_BYTES_MS_MAX }).status !== 0) return null;
    renameSync(path.join(made, 'package'), folder);
    return folder;
  } finally {
    rmSync(made, { recursive: true, force: true });
  }
}

/**
 * Its compiled client posts what is not streamed and asks for the next event. It has another in JavaScript for the latter
 * (AWS_LAMBDA_NODEJS_USE_ALTERNATIVE_CLIENT_1); this stands in for the former, which a handler that streams uses for its failures only.
 */
const NATIVE_CLIENT = `
const Module = require('node:module');
const load = Module._load;
const post = (path, body) => void fetch('http://' + process.env.AWS_LAMBDA_RUNTIME_API + '${API}/invocation/' + path, { method: 'POST', body });
Module._load = function (request, ...rest) {
  if (!request.endsWith('rapid-client.node')) return load.call(this, request, ...rest);
  return { done: (id, body) => post(id + '/response', body), error: (id, body) => post(id + '/error', body) };
};
`;

interface Invocation {
  readonly id: string;
  readonly event: string;
  readonly response: ServerResponse;
  /** Of the Invoke API: what the handler returns is the answer, as JSON. */
  readonly isRaw: boolean;
}

export interface LambdaFunction extends AsyncDisposable {
  /** The Function URL. */
  readonly url: string;
  /** What the function logged. */
  readonly log: { text: string };
}

/** @param folder with index.mjs. @param command another program for Node, which speaks the runtime API itself. @throws if it ends before it is ready, with what it said. */
export async function startLambda(ric: string, folder: string, environment: Readonly<Record<string, string>>, command?: readonly string[]): Promise<LambdaFunction> {
  const waiting: Invocation[] = [];
  const running = new Map<string, Invocation>();
  const runtimes: ServerResponse[] = [];
  const give = (): void => {
    while (waiting.length > 0 && runtimes.length > 0) {
      const invocation = waiting.shift() as Invocation;
      running.set(invocation.id, invocation);
      (runtimes.shift() as ServerResponse).writeHead(200, {
        'content-type': 'application/json', 'lambda-runtime-aws-request-id': invocation.id, 'lambda-runtime-deadline-ms': `${Date.now() + DEADLINE_MS}`,
        'lambda-runtime-invoked-function-arn': 'arn:aws:lambda:us-east-1:000000000000:function:front', 'lambda-runtime-trace-id': 'Root=1-0-0',
      }).end(invocation.event);
    }
  };
  const ready = { resolve: (): void => undefined, reject: (_: Error): void => undefined };
  const started = new Promise<void>((resolve, reject) => Object.assign(ready, { resolve, reject }));

  const api = await listening(createServer((request, response) => {
    const [, id = '', what = ''] = new RegExp(`^${API}/invocation/([^/]+)(?:/(\\w+))?$`).exec(request.url ?? '') ?? [];
    if (id === 'next') {
      ready.resolve();
      runtimes.push(response);
      return give();
    }
    const invocation = running.get(id);
    running.delete(id);
    const done = (): void => void response.writeHead(202, { 'content-type': 'application/json' }).end('{"status":"OK"}');
    if (what === 'response' && invocation?.isRaw === true) {
      return void textOf(request).then((text) => {
        invocation.response.writeHead(200, { 'content-type': 'application/json' }).end(text);
        done();
      });
    }
    if (what === 'response' && invocation !== undefined) return void answer(request, invocation.response).then(done, () => response.destroy());
    // An error of the start or of an invocation.
    void textOf(request).then((text) => {
      invocation?.response.writeHead(502).end(text);
      if (invocation === undefined) ready.reject(new Error(text));
      done();
    });
  }));
  const gateway = await listening(createServer((request, response) => {
    const isRaw = request.url?.startsWith('/2015-03-31/functions/') === true;
    void (isRaw ? textOf(request) : eventOf(request).then((event) => JSON.stringify(event))).then((event) => {
      waiting.push({ id: randomUUID(), event, response, isRaw });
      give();
    });
  }));

  const hook = path.join(folder, 'rapid-client.cjs');
  writeFileSync(hook, NATIVE_CLIENT);
  const child = spawn(process.execPath, command ?? ['--require', hook, path.join(ric, 'bin', 'index.mjs'), 'index.handler'], {
    cwd: folder,
    env: {
      PATH: process.env.PATH, ...environment, AWS_LAMBDA_RUNTIME_API: `127.0.0.1:${api.port}`, AWS_LAMBDA_NODEJS_USE_ALTERNATIVE_CLIENT_1: 'true',
      LAMBDA_TASK_ROOT: folder, AWS_LAMBDA_FUNCTION_NAME: 'front', AWS_LAMBDA_FUNCTION_VERSION: '$LATEST', AWS_LAMBDA_FUNCTION_MEMORY_SIZE: '512', _HANDLER: 'index.handler',
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const log = { text: '' };
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => { log.text += chunk.toString(); });
  child.once('close', (code) => ready.reject(new Error(`the runtime ended with ${code}: ${log.text.slice(-4_000)}`)));
  const late = setTimeout(() => ready.reject(new Error(`the runtime is not ready: ${log.text.slice(-4_000)}`)), START_MS_MAX);
  const stop = async (): Promise<void> => {
    clearTimeout(late);
    await killed(child);
    for (const server of [api.server, gateway.server]) {
      server.close();
      server.closeAllConnections();
    }
  };
  try {
    await started;
  } catch (error) {
    await stop();
    throw error;
  }
  clearTimeout(late);
  return { url: `http://127.0.0.1:${gateway.port}`, log, [Symbol.asyncDispose]: stop };
}

/** As a schedule does. @throws what the handler threw. */
export async function invoke({ url }: { readonly url: string }, event: object): Promise<unknown> {
  const response = await fetch(`${url}/2015-03-31/functions/function/invocations`, { method: 'POST', body: JSON.stringify(event) });
  const text = await response.text();
  if (!response.ok) throw new Error(text);
  return JSON.parse(text) as unknown;
}

/** Metadata as JSON, the delimiter, then the body as it comes. */
async function answer(from: IncomingMessage, to: ServerResponse): Promise<void> {
  let held: Buffer | null = Buffer.alloc(0);
  for await (const chunk of from as AsyncIterable<Buffer>) {
    if (held === null) {
      to.write(chunk);
      continue;
    }
    held = Buffer.concat([held, chunk]);
    const at = held.indexOf(DELIMITER);
    if (at < 0) continue;
    const { statusCode, headers, cookies } = JSON.parse(held.subarray(0, at).toString()) as { statusCode: number; headers: Record<string, string>; cookies: string[] };
    to.writeHead(statusCode, { ...headers, ...(cookies.length === 0 ? {} : { 'set-cookie': cookies }) });
    const rest = held.subarray(at + DELIMITER.byteLength);
    if (rest.byteLength > 0) to.write(rest);
    else to.flushHeaders();
    held = null;
  }
  // A handler that failed in the middle says so in trailers.
  if (held !== null || from.trailers['lambda-runtime-function-error-type'] !== undefined) return void to.destroy();
  to.end();
}

async function eventOf(request: IncomingMessage): Promise<object> {
  const body: Buffer[] = [];
  for await (const chunk of request as AsyncIterable<Buffer>) body.push(chunk);
  const url = new URL(request.url ?? '/', `http://${request.headers.host}`);
  const headers = Object.fromEntries(Object.entries(request.headers).map(([name, value]) => [name, Array.isArray(value) ? value.join(',') : value]));
  const host = request.headers.host ?? '';
  return {
    version: '2.0', routeKey: '$default', rawPath: url.pathname, rawQueryString: url.search.slice(1), headers, queryStringParameters: Object.fromEntries(url.searchParams),
    requestContext: {
      accountId: 'anonymous', apiId: 'front', domainName: host, domainPrefix: 'front', requestId: randomUUID(), routeKey: '$default', stage: '$default', time: new Date().toISOString(), timeEpoch: Date.now(),
      http: { method: request.method, path: url.pathname, protocol: 'HTTP/1.1', sourceIp: '127.0.0.1', userAgent: request.headers['user-agent'] ?? '' },
    },
    ...(body.length === 0 ? {} : { body: Buffer.concat(body).toString('base64') }),
    isBase64Encoded: body.length > 0,
  };
}

async function textOf(request: IncomingMessage): Promise<string> {
  let text = '';
  for await (const chunk of request as AsyncIterable<Buffer>) text += chunk.toString();
  return text;
}

async function listening(server: Server): Promise<{ readonly server: Server; readonly port: number }> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { server, port: (server.address() as AddressInfo).port };
}

async function killed(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const closed = once(child, 'close');
  child.kill('SIGKILL');
  await closed;
}
