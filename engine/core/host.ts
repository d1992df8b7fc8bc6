/** What is asked of the runtime that this code happens to run on, where the web's own means do not say: Node, or workerd. */
import type vm from 'node:vm';

const host = globalThis as {
  readonly process?: { getBuiltinModule?(id: string): unknown };
  readonly navigator?: { readonly userAgent?: string };
};

/** Asked for and never imported, so that the same bundle starts where there is none; undefined: this is not Node. */
export const nodeVm = host.process?.getBuiltinModule?.('node:vm') as typeof vm | undefined;

/**
 * workerd: what one request waits for (a timer, a connection) ends with that request, so that no other may wait for it. What is remembered
 * between requests is what has been made, and never what is being made.
 */
export const areRequestsIsolated = host.navigator?.userAgent === 'Cloudflare-Workers';
