/**
 * A hub that speaks what @huggingface/hub asks for: revisions, paged tree listings with git and LFS digests, `resolve` with ranges and,
 * for LFS files, redirects to another origin with a signed address. It fails as it is told.
 */
import { createHash } from 'node:crypto';
import { type IncomingMessage, type Server, type ServerResponse, createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface HubFile {
  readonly content: Buffer;
  readonly lfs: boolean;
}

/** What one request gets in place of its answer; null: its answer. */
export type HubFault =
  | { readonly kind: 'status'; readonly status: number; readonly headers?: Readonly<Record<string, string>> }
  | { readonly kind: 'reset' }
  /** The headers promise all, the body ends early. */
  | { readonly kind: 'truncate'; readonly bytes: number }
  | { readonly kind: 'flip'; readonly at: number }
  | { readonly kind: 'whole' }
  /** No answer, for ever. */
  | { readonly kind: 'stall' };

export interface HubRequest {
  readonly origin: 'hub' | 'cdn';
  readonly path: string;
  readonly range: string | null;
  readonly authorization: string | null;
}

export interface HubOptions {
  readonly repo: string;
  readonly files: ReadonlyMap<string, HubFile>;
  readonly token?: string;
  readonly fault?: (request: HubRequest) => HubFault | null;
  /** Of the listing, to be hostile with. */
  readonly change?: (entries: Record<string, unknown>[]) => void;
  readonly tags?: readonly string[];
}

export interface Hub extends AsyncDisposable {
  readonly endpoint: string;
  readonly sha: string;
  readonly requests: readonly HubRequest[];
}

const PAGE = 3;

export async function startHub(options: HubOptions): Promise<Hub> {
  const requests: HubRequest[] = [];
  const sha = createHash('sha1').update(options.repo).digest('hex');
  const note = (origin: HubRequest['origin'], request: IncomingMessage): HubRequest => {
    const noted = { origin, path: decodeURIComponent(request.url ?? ''), range: request.headers.range ?? null, authorization: request.headers.authorization ?? null };
    requests.push(noted);
    return noted;
  };

  const cdn = await listening(createServer((request, response) => {
    const noted = note('cdn', request);
    const file = [...options.files.values()].find(({ content }) => noted.path.startsWith(`/${digest('sha256', content)}?`));
    if (file === undefined || !noted.path.endsWith('?signature=secret')) return void response.writeHead(403).end();
    send(response, file.content, noted.range, `"${digest('sha256', file.content)}"`, options.fault?.(noted) ?? null);
  }));
  const hub = await listening(createServer((request, response) => {
    const noted = note('hub', request);
    if (options.token !== undefined && noted.authorization !== `Bearer ${options.token}`) return void response.writeHead(401).end();
    const fault = options.fault?.(noted) ?? null;
    if (fault?.kind === 'status') return void response.writeHead(fault.status, fault.headers).end();
    if (fault?.kind === 'reset') return void response.destroy();
    const [path = '', query = ''] = noted.path.split('?');
    if (path.startsWith(`/api/models/${options.repo}/revision/`)) {
      const revision = path.split('/').at(-1);
      if (revision !== 'main' && revision !== sha) return void response.writeHead(404, { 'x-error-code': 'RevisionNotFound' }).end();
      return json(response, { _id: 'x', id: options.repo, sha, tags: options.tags ?? [], private: false, gated: false, downloads: 0, likes: 0, lastModified: '2025-01-01T00:00:00.000Z' });
    }
    if (path === `/api/models/${options.repo}/tree/${sha}`) {
      const entries = [...options.files].map(([name, file]) => entryOf(name, file));
      options.change?.(entries);
      const from = Number(new URLSearchParams(query).get('cursor') ?? 0);
      const next = from + PAGE < entries.length ? { link: `<http://${request.headers.host}/api/models/${options.repo}/tree/${sha}?cursor=${from + PAGE}>; rel="next"` } : {};
      return json(response, entries.slice(from, from + PAGE), next);
    }
    const file = path.startsWith(`/${options.repo}/resolve/${sha}/`) ? options.files.get(path.split('/').slice(5).join('/')) : undefined;
    if (file === undefined) return void response.writeHead(404, { 'x-error-code': 'EntryNotFound' }).end();
    if (!file.lfs) return send(response, file.content, noted.range, `"${gitOf(file.content)}"`, fault);
    const oid = digest('sha256', file.content);
    response.writeHead(302, { location: `http://localhost:${portOf(cdn)}/${oid}?signature=secret`, 'x-linked-etag': `"${oid}"`, 'x-linked-size': String(file.content.length) }).end();
  }));
  return {
    endpoint: `http://127.0.0.1:${portOf(hub)}`,
    sha,
    requests,
    [Symbol.asyncDispose]: async () => {
      for (const server of [hub, cdn]) {
        server.closeAllConnections();
        await new Promise((resolve) => server.close(resolve));
      }
    },
  };
}

function entryOf(path: string, { content, lfs }: HubFile): Record<string, unknown> {
  const pointer = Buffer.from(`version https://git-lfs.github.com/spec/v1\noid sha256:${digest('sha256', content)}\nsize ${content.length}\n`);
  return {
    type: 'file',
    path,
    size: content.length,
    oid: gitOf(lfs ? pointer : content),
    ...(lfs ? { lfs: { oid: digest('sha256', content), size: content.length, pointerSize: pointer.length } } : {}),
  };
}

function send(response: ServerResponse, content: Buffer, range: string | null, etag: string, fault: HubFault | null): void {
  if (fault?.kind === 'stall') return;
  if (fault?.kind === 'status') return void response.writeHead(fault.status, fault.headers).end();
  if (fault?.kind === 'reset') return void response.destroy();
  const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(range ?? '') ?? [];
  const whole = from === undefined || fault?.kind === 'whole';
  const body = Buffer.from(whole ? content : content.subarray(Number(from), Number(to) + 1));
  if (fault?.kind === 'flip') body[fault.at % body.length] = (body[fault.at % body.length] ?? 0) ^ 1;
  const part = whole ? {} : { 'content-range': `bytes ${from}-${Number(from) + body.length - 1}/${content.length}` };
  response.writeHead(whole ? 200 : 206, { 'content-length': String(body.length), etag, ...part });
  if (fault?.kind !== 'truncate') return void response.end(body);
  response.write(body.subarray(0, fault.bytes), () => response.destroy());
}

function json(response: ServerResponse, value: unknown, headers: Record<string, string> = {}): void {
  response.writeHead(200, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(value));
}

const digest = (algorithm: string, content: Buffer): string => createHash(algorithm).update(content).digest('hex');
const gitOf = (content: Buffer): string => createHash('sha1').update(`blob ${content.length}\0`).update(content).digest('hex');
const portOf = (server: Server): number => (server.address() as AddressInfo).port;

function listening(server: Server): Promise<Server> {
  return new Promise((resolve) => server.listen(0, () => resolve(server)));
}
