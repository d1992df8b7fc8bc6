/**
 * A function: some endpoints over a store and a queue that are reached by fetch. Nothing here is Node's, so the same bundle is a Worker
 * (`export default`), the inside of a Lambda handler (lambda.ts) and of any server on Node. Its state is
 * in the store: an instance keeps connections, caches and rates only.
 */
import type { CatalogueOptions } from '../engine/checkpoint/catalogue.ts';
import { PRICES } from '../engine/core/prices.ts';
import { type AddEndpoints, assemble } from './assemble.ts';
import type { App, AppOptions } from './context.ts';
import { type Environment, type FrontConfig, processEnvironment, readEnv } from './env.ts';
import type { OpenBatchesOptions } from './open-batches.ts';
import { openServices } from './services.ts';

export interface FunctionParts {
  readonly add: AddEndpoints;
  /** As of AppOptions. */
  readonly asksStore?: boolean | undefined;
  /** Of a function with files and batches. */
  readonly storage?: ((options: OpenBatchesOptions) => AppOptions['storage']) | undefined;
  /** Of a function that shows what is stored of jobs. */
  readonly checkpoints?: ((options: CatalogueOptions) => AppOptions['checkpoints']) | undefined;
  /** Of a function that manages webhooks; whoever runs jobs delivers them. */
  readonly webhooks?: ((options: Pick<OpenBatchesOptions, 'store' | 'keys'>) => AppOptions['webhooks']) | undefined;
}

export interface Front {
  /** Of a Worker. @param environment default: the process's. */
  fetch(request: Request, environment?: Environment, context?: ExecutionContext): Promise<Response>;
  /** Of any other host. @param remote the address that asks, if the host knows it. */
  answer(request: Request, remote?: string): Promise<Response>;
  /** What a host that starts before it serves does first. @throws EngineError ERR_OPTION: the configuration is wrong. */
  open(environment?: Environment): void;
}

/** Of a Worker. */
interface ExecutionContext {
  waitUntil(work: Promise<unknown>): void;
  passThroughOnException(): void;
  readonly props: unknown;
}

declare const VERSION: string | undefined;

/** @example export default front({ add: chatCompletions }); */
export function front(made: FunctionParts): Front {
  let app: App | null = null;
  const opened = (environment: Environment | undefined): App => (app ??= openApp(readEnv(environment ?? processEnvironment()), made));
  return {
    open: (environment) => void opened(environment),
    answer: async (request, remote) => await opened(undefined).fetch(request, { remote }),
    async fetch(request, environment, context) {
      let ready: App;
      try {
        ready = opened(environment);
      } catch (error) {
        // A Worker has no start of its own at which to refuse.
        console.error((error as Error).message);
        return Response.json({ error: { message: 'The function is not configured; its log says what is wrong.', type: 'server_error', param: null, code: 'misconfigured' } }, { status: 500 });
      }
      if (context === undefined) return await ready.fetch(request);
      // Cloudflare writes it; anywhere else it would be the client's word.
      const answering = Promise.resolve(ready.fetch(request, { remote: request.headers.get('cf-connecting-ip') ?? undefined }, context));
      context.waitUntil(answering.catch(() => undefined));
      return untilGone(await answering, request, context);
    },
  };
}

/**
 * A Worker's request ends with its client, and with it all that it waits for: what is to be done then (the job of a client that has gone is
 * cancelled) is done behind it, and begins when the request's signal says so (`enable_request_signal`), else at the next write.
 */
function untilGone(response: Response, request: Request, context: ExecutionContext): Response {
  if (response.body === null) return response;
  const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
  context.waitUntil(response.body.pipeTo(writable, { signal: request.signal }).catch(() => undefined));
  return new Response(readable, response);
}

function openApp(config: FrontConfig, { add, asksStore, storage, checkpoints, webhooks }: FunctionParts): App {
  const { auth } = config;
  const { store, keys, outbox, platform, log } = openServices(config);
  const usdPerGbMonth = config.store.kind === 'memory' ? null : PRICES.s3.gibMonth;
  return assemble({
    platform, auth, log, asksStore, version: typeof VERSION === 'string' ? VERSION : '0',
    storage: storage?.({ store, keys, platform, outbox, log }), checkpoints: checkpoints?.({ store, keys, usdPerGbMonth }), webhooks: webhooks?.({ store, keys }),
  }, add);
}
