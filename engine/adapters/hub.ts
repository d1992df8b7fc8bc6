/**
 * The Hugging Face hub, or what speaks its protocol: `hf:owner/name[/file.gguf][@revision]`. Through `@huggingface/hub`, with the
 * retries, time limits and bounds that it leaves to its caller. A revision is resolved to a commit once, and everything is of that.
 */
import { type FileDownloadInfoOutput, HubApiError, downloadFile, fileDownloadInfo, listFiles, modelInfo } from '@huggingface/hub';
import { setTimeout as sleep } from 'node:timers/promises';
import { EngineError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { NAME_PATTERN } from '../model/card.ts';
import { modelFiles } from '../model/files.ts';
import type { Body, CallOptions } from '../ports/object-store.ts';
import type { ByteRange, Digest, ModelListing, ModelSource, SourceFile } from '../ports/model-source.ts';

const REFERENCE = /^hf:([A-Za-z0-9][\w.-]{0,95}\/[A-Za-z0-9][\w.-]{0,95})(?:\/([A-Za-z0-9][\w.-]{0,127}\.gguf))?(?:@([A-Za-z0-9][\w./-]{0,127}))?$/;
/** Repositories of data sets have more; of models the largest has hundreds. */
const ENTRIES_MAX = 20_000;

export interface HubOptions {
  /** Default: HF_ENDPOINT, else huggingface.co. */
  readonly endpoint?: string | undefined;
  /** Default: HF_TOKEN; sent to the endpoint only. */
  readonly token?: string | undefined;
  /** Longest pause between two tries; tests pass a short one. */
  readonly backoffMsMax?: number | undefined;
}

/** What every call of the library is given. */
interface HubCall {
  readonly hubUrl: string;
  readonly accessToken?: string;
  readonly fetch: typeof fetch;
}

/** Told to come back: not a failure yet. */
class TryAgain extends Error {
  readonly afterMs: number | null;
  constructor(message: string, afterMs: number | null, options?: { cause?: unknown }) {
    super(message, options);
    this.afterMs = afterMs;
  }
}

export class HubSource implements ModelSource {
  readonly url: string;
  readonly #repo: string;
  readonly #only: string | null;
  readonly #endpoint: string;
  readonly #token: string | undefined;
  readonly #backoffMsMax: number;
  #revision: string;
  readonly #infos = new Map<string, FileDownloadInfoOutput>();

  /** @throws EngineError ERR_MODEL_NOT_FOUND, ERR_STORE_CONFIG */
  constructor(reference: string, options: HubOptions = {}) {
    const [, repo, only, revision] = REFERENCE.exec(reference) ?? [];
    if (repo === undefined || reference.includes('..')) {
      throw new EngineError('ERR_MODEL_NOT_FOUND', `A model of a hub is written hf:owner/name, hf:owner/name@revision or hf:owner/name/file.gguf; got ${JSON.stringify(reference.slice(0, 80))}.`);
    }
    this.url = reference;
    this.#repo = repo;
    this.#only = only ?? null;
    this.#revision = revision ?? 'main';
    this.#endpoint = (options.endpoint ?? (process.env.HF_ENDPOINT || 'https://huggingface.co')).replace(/\/+$/, '');
    this.#token = options.token ?? (process.env.HF_TOKEN || undefined);
    this.#backoffMsMax = options.backoffMsMax ?? LIMITS.HUB_BACKOFF_MS_MAX;
    if (!/^https?:\/\/[^/]+/.test(this.#endpoint)) {
      throw new EngineError('ERR_STORE_CONFIG', `HF_ENDPOINT must be an http or https URL; got ${JSON.stringify(this.#endpoint.slice(0, 80))}.`);
    }
    if (this.#token !== undefined && !this.#token.startsWith('hf_')) throw new EngineError('ERR_STORE_CONFIG', 'HF_TOKEN must start with hf_.');
  }

  async list(options: CallOptions = {}): Promise<ModelListing> {
    const info = await this.#tried(options, (call) => modelInfo({ name: this.#repo, revision: this.#revision, additionalFields: ['sha', 'tags'], ...call }));
    if (typeof info.sha !== 'string' || !/^[0-9a-f]{40}$/.test(info.sha)) throw new EngineError('ERR_STORE', `${this.url}: the hub names no commit.`);
    this.#revision = info.sha;
    const entries = await this.#tried(options, async (call) => {
      const found = [];
      for await (const entry of listFiles({ repo: this.#repo, revision: this.#revision, recursive: false, ...call })) {
        if (found.push(entry) > ENTRIES_MAX) throw new EngineError('ERR_MODEL_FILE', `${this.url} lists more than ${ENTRIES_MAX} files.`);
      }
      return found;
    });
    const files = entries.filter(({ type }) => type === 'file').map(({ path, size, oid, lfs }) => ({ path: String(path), bytes: lfs?.size ?? size, oid, lfs }));
    const name = (this.#only ?? this.#repo.split('/')[1] ?? '').replace(/\.gguf$/, '').slice(0, 64);
    return {
      name: NAME_PATTERN.test(name) ? name : 'model',
      revision: this.#revision,
      licence: (info.tags ?? []).find((tag) => tag.startsWith('license:'))?.slice('license:'.length, 72) ?? null,
      card: null,
      files: modelFiles(files, this.#only, this.url).map(({ path, bytes, oid, lfs }) => ({ path, bytes, digest: this.#digestOf(path, lfs?.oid, oid) })),
    };
  }

  async read(file: SourceFile, { offset, bytes }: ByteRange, options: CallOptions = {}): Promise<Body> {
    if (bytes === 0) return [];
    const of = { repo: this.#repo, path: file.path, revision: this.#revision };
    return await this.#tried({ ...options, bytesMax: file.bytes }, async (call) => {
      const downloadInfo = this.#infos.get(file.path) ?? (await fileDownloadInfo({ ...of, ...call }));
      if (downloadInfo === null) throw new EngineError('ERR_MODEL_FILE', `${this.url}: ${file.path} is listed and not there.`);
      if (downloadInfo.size !== file.bytes) {
        throw new EngineError('ERR_MODEL_FILE', `${this.url}: ${file.path} is listed with ${file.bytes} bytes and has ${downloadInfo.size}.`);
      }
      this.#infos.set(file.path, downloadInfo);
      const blob = await downloadFile({ ...of, downloadInfo, xet: false, ...call });
      const got = new Uint8Array((await blob?.slice(offset, offset + bytes).arrayBuffer()) ?? new ArrayBuffer(0));
      if (got.length < bytes) throw new TryAgain(`${file.path}: the answer ended after ${got.length} of ${bytes} bytes`, null);
      return [got];
    });
  }

  #digestOf(path: string, lfs: string | undefined, oid: string | undefined): Digest {
    if (lfs !== undefined && /^[0-9a-f]{64}$/.test(lfs)) return { algorithm: 'sha256', hex: lfs };
    if (lfs === undefined && oid !== undefined && /^[0-9a-f]{40}$/.test(oid)) return { algorithm: 'git', hex: oid };
    throw new EngineError('ERR_MODEL_FILE', `${this.url}: the hub gives no digest of ${path}, so nobody could tell whether it arrived whole.`);
  }

  /** Again with backoff and full jitter while the hub is busy, failing or cut off; at once if it says no. */
  async #tried<T>({ signal, bytesMax = LIMITS.JSON_BYTES_MAX }: CallOptions & { readonly bytesMax?: number }, work: (call: HubCall) => Promise<T>): Promise<T> {
    for (let tries = 1; ; tries++) {
      const timeout = AbortSignal.timeout(LIMITS.HUB_REQUEST_MS_MAX);
      const either = signal === undefined ? timeout : AbortSignal.any([signal, timeout]);
      const call = { hubUrl: this.#endpoint, ...(this.#token === undefined ? {} : { accessToken: this.#token }), fetch: fetchWith(either, bytesMax) };
      try {
        return await work(call);
      } catch (error) {
        if (signal?.aborted) throw new EngineError('ERR_CANCELLED', `The request to ${this.#endpoint} was cancelled.`, { cause: error });
        const again = this.#again(error);
        if (tries >= LIMITS.HUB_TRIES_MAX) {
          throw new EngineError('ERR_STORE', `${this.url}: ${again.message}; given up after ${tries} tries.`, { cause: error });
        }
        const backoffMs = Math.random() * Math.min(this.#backoffMsMax, 250 * 2 ** tries);
        await sleep(Math.min(again.afterMs ?? backoffMs, LIMITS.HUB_RETRY_AFTER_MS_MAX), undefined, { signal }).catch((cause: unknown) => {
          throw new EngineError('ERR_CANCELLED', `The request to ${this.#endpoint} was cancelled.`, { cause });
        });
      }
    }
  }

  /** What may be tried again; the rest is thrown. The library's messages hold addresses, and those of a redirect are signed: not shown. */
  #again(error: unknown): TryAgain {
    if (error instanceof TryAgain) return error;
    if (error instanceof EngineError) throw error;
    if (error instanceof HubApiError) {
      const { statusCode } = error;
      if (statusCode === 401 || statusCode === 403) {
        throw new EngineError('ERR_STORE_CONFIG', `${this.url}: the hub denies access (${statusCode}); set HF_TOKEN, and accept the model's terms if it has some.`, { cause: error });
      }
      if (statusCode === 404) {
        throw new EngineError('ERR_MODEL_NOT_FOUND', `${this.url}: the hub has no such model, revision or file.`, { cause: error });
      }
      throw new EngineError('ERR_STORE', `${this.url}: the hub answers ${statusCode}.`, { cause: error });
    }
    const why = error instanceof Error ? ((error.cause as { code?: string } | undefined)?.code ?? error.message) : String(error);
    return new TryAgain(`the connection failed (${why})`, null, { cause: error });
  }
}

/** One request with a time limit, whose answer is not longer than what was asked for: nothing is read into memory without a bound. */
function fetchWith(signal: AbortSignal, bytesMax: number): typeof fetch {
  return async (input, init) => {
    const response = await fetch(input, { ...init, signal });
    if (response.status === 429 || response.status === 408 || response.status >= 500) {
      await response.body?.cancel();
      const seconds = Number(response.headers.get('retry-after') ?? NaN);
      throw new TryAgain(`the hub answers ${response.status}`, Number.isFinite(seconds) ? seconds * 1_000 : null);
    }
    const range = /^bytes=(\d+)-(\d+)$/.exec(new Headers(init?.headers).get('range') ?? '');
    // Where a file is stored in chunks (Xet), the question for its size is answered by a description.
    const described = response.headers.get('content-type')?.includes('application/vnd.xet-fileinfo+json') === true;
    if (range !== null && response.status === 200 && !described) {
      await response.body?.cancel();
      throw new EngineError('ERR_STORE', 'The hub does not answer to byte ranges.');
    }
    // The library asks this response for its address, so it must stay the one that came; its length is declared.
    if (range !== null) {
      const asked = Number(range[2]) - Number(range[1]) + 1;
      const length = Number(response.headers.get('content-length') ?? NaN);
      if (response.status !== 206 || length <= asked) return response;
      await response.body?.cancel();
      throw new EngineError('ERR_STORE', `The hub answers to a range of ${asked} bytes with ${length}.`);
    }
    const { status, headers } = response;
    return response.body === null ? response : new Response(response.body.pipeThrough(atMost(bytesMax)), { status, headers });
  };
}

function atMost(bytesMax: number): TransformStream<Uint8Array, Uint8Array> {
  let bytes = 0;
  return new TransformStream({
    transform(chunk, controller) {
      bytes += chunk.length;
      if (bytes > bytesMax) controller.error(new EngineError('ERR_STORE', `The hub answers with more than ${bytesMax} bytes.`));
      else controller.enqueue(chunk);
    },
  });
}
