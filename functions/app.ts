/** The HTTP API on any Platform: the same code on Node, as a Lambda handler and on workerd. */
import { assemble } from './assemble.ts';
import type { App, AppOptions } from './context.ts';
import type { Registry } from './endpoint.ts';
import { metrics } from './health.ts';
import { checkpoints } from './jobs/checkpoints.ts';
import { jobEvents } from './jobs/events.ts';
import { jobs } from './jobs/jobs.ts';
import { batches } from './openai/batches.ts';
import { chatCompletions } from './openai/chat.ts';
import { files } from './openai/files.ts';
import { models } from './openai/models.ts';
import { responses } from './openai/responses.ts';
import { textCompletions } from './openai/text.ts';
import { webhooks } from './webhooks/webhooks.ts';

/** @example serve({ fetch: createApp({ platform, auth: null, log: pino() }).fetch, port: 8787, hostname: '127.0.0.1' }) */
export function createApp(options: AppOptions): App {
  return assemble(options, addAll);
}

/** Every endpoint that there is; functions/entries has them one by one. */
export function addAll(registry: Registry, options: AppOptions): void {
  chatCompletions(registry);
  textCompletions(registry);
  responses(registry);
  models(registry);
  jobs(registry);
  jobEvents(registry);
  if (options.checkpoints !== undefined) checkpoints(registry, options.checkpoints);
  if (options.storage !== undefined) {
    files(registry, options.storage.files);
    batches(registry, options.storage.batches);
  }
  if (options.webhooks !== undefined) webhooks(registry, options.webhooks);
  if (options.metrics !== undefined) metrics(registry, options.metrics);
}
