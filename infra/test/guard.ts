/**
 * What stands between a process and AWS's servers as its role would: it lets through what the role's statements in the template allow, answers
 * AccessDenied to all else, and keeps who used what. Signatures stay valid: the Host is passed on. What a service does on a caller's behalf (S3 and SQS
 * asking KMS for their own keys) is not seen here.
 */
import { once } from 'node:events';
import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

import { ACCOUNT } from './emulated.ts';

export interface Statement {
  readonly Sid: string;
  readonly Action: string | readonly string[];
  readonly Resource: string | readonly string[];
  readonly Condition?: Readonly<Record<string, Readonly<Record<string, string | readonly string[]>>>>;
}

/** One call, as IAM sees it; some requests are several. */
export interface Call {
  readonly action: string;
  readonly resource: string;
  readonly context: Readonly<Record<string, string>>;
}

export interface Upstreams {
  readonly s3: string;
  readonly sqs: string;
  readonly kms: string;
  readonly region: string;
}

const list = <T>(value: T | readonly T[]): readonly T[] => (Array.isArray(value) ? (value as readonly T[]) : [value as T]);
const matches = (pattern: string, text: string): boolean => new RegExp(`^${pattern.split('*').map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('.*')}$`, 's').test(text);

/** Which statement allows it; null: none does. Only what our templates use; another operator is an error. */
export function allowedBy(statements: readonly Statement[], { action, resource, context }: Call): Statement | null {
  return statements.find(({ Action, Resource, Condition = {} }) =>
    list(Action).includes(action) && list(Resource).some((pattern) => matches(pattern, resource)) && Object.entries(Condition).every(([operator, of]) => Object.entries(of).every(([key, wanted]) => holds(operator, context[key], list(wanted))))) ?? null;
}

function holds(operator: string, given: string | undefined, wanted: readonly string[]): boolean {
  if (operator.endsWith('IfExists')) return given === undefined || holds(operator.slice(0, -'IfExists'.length), given, wanted);
  if (given === undefined) return false;
  if (operator === 'StringEquals') return wanted.includes(given);
  if (operator === 'StringLike' || operator === 'ArnLike') return wanted.some((pattern) => matches(pattern, given));
  throw new Error(`${operator} is not known to the guard.`);
}

export class Guard implements AsyncDisposable {
  /** `action resource-pattern`, of statements that somebody needed. */
  readonly used = new Set<string>();
  readonly denied: string[] = [];

  private constructor(readonly endpoint: string, readonly close: () => Promise<void>) {}

  static async start(statements: readonly Statement[], upstreams: Upstreams): Promise<Guard> {
    const server = createServer((incoming, outgoing) => void serve(incoming, outgoing).catch(() => outgoing.destroy()));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const guard = new Guard(`http://127.0.0.1:${(server.address() as AddressInfo).port}`, async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    });

    async function serve(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
      const body = Buffer.concat(await incoming.toArray() as Buffer[]);
      const target = String(incoming.headers['x-amz-target'] ?? '');
      const calls = target === '' ? s3Calls(incoming, body) : targetCalls(target, JSON.parse(body.toString()) as Record<string, any>, upstreams.region);
      for (const call of calls) {
        const statement = allowedBy(statements, call);
        if (statement === null) {
          guard.denied.push(`${call.action} ${call.resource}`);
          return void refuse(outgoing, target === '');
        }
        for (const pattern of list(statement.Resource)) if (matches(pattern, call.resource)) guard.used.add(`${call.action} ${pattern}`);
      }
      const { hostname, port } = new URL(target === '' ? upstreams.s3 : target.startsWith('AmazonSQS') ? upstreams.sqs : upstreams.kms);
      const onward = request({ host: hostname, port, method: incoming.method, path: incoming.url, headers: incoming.headers });
      onward.on('error', () => outgoing.destroy());
      incoming.on('close', () => { if (!outgoing.writableFinished) onward.destroy(); });
      onward.end(body);
      const [reply] = (await once(onward, 'response')) as [IncomingMessage];
      outgoing.writeHead(reply.statusCode ?? 0, reply.headers);
      reply.pipe(outgoing);
    }
    return guard;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

function refuse(outgoing: ServerResponse, isXml: boolean): void {
  if (isXml) outgoing.writeHead(403, { 'content-type': 'application/xml' }).end('<Error><Code>AccessDenied</Code><Message>by its role</Message></Error>');
  else outgoing.writeHead(400, { 'content-type': 'application/x-amz-json-1.0' }).end('{"__type":"AccessDeniedException","message":"by its role"}');
}

/** https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html */
export function s3Calls({ method = '', url = '', headers }: Pick<IncomingMessage, 'method' | 'url' | 'headers'>, body: Buffer): Call[] {
  const { pathname, searchParams } = new URL(url, 'http://s3');
  const [, bucket = '', ...rest] = pathname.split('/').map(decodeURIComponent);
  const key = rest.join('/');
  const on = (action: string, name = key): Call => ({ action: `s3:${action}`, resource: `arn:aws:s3:::${bucket}${name === '' ? '' : `/${name}`}`, context: {} });
  if (method === 'GET' && key === '' && searchParams.has('list-type')) return [{ ...on('ListBucket'), context: { 's3:prefix': searchParams.get('prefix') ?? '' } }];
  if (method === 'POST' && searchParams.has('delete')) return [...body.toString().matchAll(/<Key>([^<]*)<\/Key>/g)].map(([, name = '']) => on('DeleteObject', name.replaceAll('&amp;', '&')));
  if ((method === 'GET' || method === 'HEAD') && key !== '') return [on('GetObject')];
  if (method === 'DELETE') return [on(searchParams.has('uploadId') ? 'AbortMultipartUpload' : 'DeleteObject')];
  if (method === 'PUT' || (method === 'POST' && (searchParams.has('uploads') || searchParams.has('uploadId')))) {
    const source = headers['x-amz-copy-source'];
    const from = source === undefined ? [] : [{ action: 's3:GetObject', resource: `arn:aws:s3:::${decodeURIComponent(String(source)).replace(/^\//, '')}`, context: {} }];
    // Whoever writes over what he names by its etag must be able to read it.
    return [on('PutObject'), ...(headers['if-match'] === undefined ? [] : [on('GetObject')]), ...from];
  }
  throw new Error(`${method} ${url} is not known to the guard.`);
}

const BATCHED: Readonly<Record<string, string>> = { SendMessageBatch: 'SendMessage', DeleteMessageBatch: 'DeleteMessage', ChangeMessageVisibilityBatch: 'ChangeMessageVisibility' };

function targetCalls(target: string, { QueueUrl = '', KeyId = '' }: Record<string, any>, region: string): Call[] {
  const [service, operation = ''] = target.split('.');
  if (service === 'AmazonSQS') return [{ action: `sqs:${BATCHED[operation] ?? operation}`, resource: `arn:aws:sqs:${region}:${ACCOUNT}:${String(QueueUrl).split('/').at(-1)}`, context: {} }];
  if (service === 'TrentService') return [{ action: `kms:${operation}`, resource: String(KeyId), context: {} }];
  throw new Error(`${target} is not known to the guard.`);
}
