/**
 * A server of our own that speaks the JSON protocol of KMS's Encrypt and Decrypt, for what AWS's client makes of the answers. It is not
 * KMS: it checks no signature, no grant and no policy, and proves nothing about those.
 */
import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** `error`: KMS's way of refusing; `raw`: any body; `hang`: never an answer; `drop`: the connection ends. */
export type KmsAnswer =
  | { readonly kind: 'pass' | 'hang' | 'drop' }
  | { readonly kind: 'error'; readonly type: string; readonly status?: number; readonly message?: string }
  | { readonly kind: 'raw'; readonly body: (rightBody: string) => string };

export interface FakeKms extends AsyncDisposable {
  readonly endpoint: string;
  /** Decoded requests, in order. */
  readonly seen: { readonly operation: string; readonly body: Readonly<Record<string, unknown>> }[];
  /** Asked for every request. */
  answer: () => KmsAnswer;
}

interface Request {
  readonly KeyId?: string;
  readonly Plaintext?: string;
  readonly CiphertextBlob?: string;
  readonly EncryptionContext?: Readonly<Record<string, string>>;
}

export async function startFakeKms(keyIds: readonly string[]): Promise<FakeKms> {
  const keys = new Map(keyIds.map((id) => [id, randomBytes(32)]));
  const hanging = new Set<ServerResponse>();
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const operation = String(request.headers['x-amz-target']).replace('TrentService.', '');
      const body = JSON.parse(Buffer.concat(chunks).toString()) as Request;
      fake.seen.push({ operation, body: body as Readonly<Record<string, unknown>> });
      const answer = fake.answer();
      if (answer.kind === 'hang') hanging.add(response);
      else if (answer.kind === 'drop') response.destroy();
      else if (answer.kind === 'error') refuse(response, answer.type, answer.status, answer.message);
      else serve(response, operation, body, answer.kind === 'raw' ? answer.body : (right) => right);
    });
  });

  function serve(response: ServerResponse, operation: string, body: Request, spoil: (right: string) => string): void {
    const { KeyId = '', EncryptionContext = {} } = body;
    const key = keys.get(KeyId);
    if (key === undefined) return refuse(response, 'NotFoundException', 400, `Key '${KeyId}' does not exist`);
    const bound = Buffer.from(JSON.stringify(Object.entries(EncryptionContext).sort()));
    if (operation === 'Encrypt') {
      const nonce = randomBytes(12);
      const cipher = createCipheriv('aes-256-gcm', key, nonce).setAAD(bound);
      const sealed = Buffer.concat([cipher.update(Buffer.from(body.Plaintext ?? '', 'base64')), cipher.final()]);
      const id = Buffer.alloc(64, 0);
      id.write(KeyId);
      return succeed(response, spoil(JSON.stringify({ CiphertextBlob: Buffer.concat([id, nonce, sealed, cipher.getAuthTag()]).toString('base64'), KeyId })));
    }
    const blob = Buffer.from(body.CiphertextBlob ?? '', 'base64');
    const wrappedBy = blob.subarray(0, 64).toString().replace(/\0+$/, '');
    if (blob.length < 92 || !keys.has(wrappedBy)) return refuse(response, 'InvalidCiphertextException');
    if (wrappedBy !== KeyId) return refuse(response, 'IncorrectKeyException');
    try {
      const decipher = createDecipheriv('aes-256-gcm', key, blob.subarray(64, 76)).setAAD(bound).setAuthTag(blob.subarray(-16));
      const plain = Buffer.concat([decipher.update(blob.subarray(76, -16)), decipher.final()]);
      return succeed(response, spoil(JSON.stringify({ Plaintext: plain.toString('base64'), KeyId })));
    } catch {
      return refuse(response, 'InvalidCiphertextException');
    }
  }

  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const fake: FakeKms = {
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    seen: [],
    answer: () => ({ kind: 'pass' }),
    async [Symbol.asyncDispose]() {
      for (const response of hanging) response.destroy();
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
  return fake;
}

const TYPE = { 'content-type': 'application/x-amz-json-1.1' };

function succeed(response: ServerResponse, body: string): void {
  response.writeHead(200, TYPE).end(body);
}

function refuse(response: ServerResponse, type: string, status = 400, message = ''): void {
  response.writeHead(status, TYPE).end(JSON.stringify({ __type: type, message }));
}
