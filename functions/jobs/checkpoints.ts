/** What a store keeps of jobs: what it consists of and costs, where one may fork, whether it is right, and all of it as a file. */
import { z } from '@hono/zod-openapi';

import type { Anatomy } from '../../engine/checkpoint/anatomy.ts';
import type { StoredJob } from '../../engine/checkpoint/survey.ts';
import type { WholeCatalogue } from '../../engine/checkpoint/whole-catalogue.ts';
import { byteStream } from '../byte-stream.ts';
import type { AppOptions } from '../context.ts';
import { type Registry, endpoint, noteFailed } from '../endpoint.ts';
import { listLimit } from '../query.ts';
import { NATIVE_FAILURES, jobId } from './common.ts';
import { listAfter } from './request.ts';
import { states } from './views.ts';

/** Of a job that runs a minute at a time: the last hours. */
const SLICES_SHOWN = 100;
const TAG = 'Checkpoints';

const common = {
  object: z.literal('checkpoint'),
  id: z.string().openapi({ description: 'The job\'s.' }),
  state: z.enum(states).nullable(),
  objects: z.int(),
  bytes: z.int().openapi({ description: 'All that is stored, garbage included: what it is billed for.' }),
  garbage_bytes: z.int().nullable().openapi({ description: 'Of them, what nothing needs any more.' }),
  usd_per_month: z.number().nullable(),
  written_at: z.int().nullable().openapi({ description: 'Unix time of the newest object, seconds.' }),
} as const;

const summarySchema = z.object({
  ...common,
  model: z.string().nullable(),
  width: z.int().nullable(),
  tokens: z.int().nullable().openapi({ description: 'Of the longest chain.' }),
  fault: z.string().nullable().openapi({ description: 'Why it cannot be read.' }),
}).openapi('CheckpointSummary');

const checkpointSchema = z.object({
  ...common,
  sealed: z.boolean(),
  prompt_tokens: z.int().nullable(),
  bytes_by_kind: z.object({ segment: z.int(), tail: z.int(), journal: z.int(), manifest: z.int(), spec: z.int(), head: z.int() }),
  chains: z.array(z.object({
    chain: z.int(), tokens: z.int(), finish: z.string().nullable(),
    tails: z.array(z.int()).openapi({ description: 'Tokens from which a fork computes nothing again; from elsewhere it computes what comes after the tail before.' }),
  })),
  slices: z.array(z.object({
    slice: z.int(), outcome: z.enum(['started', 'restored', 'recomputed', 'replayed']), reason: z.string().nullable(), from_step: z.int(), tokens_recomputed: z.int(),
  })).openapi({ description: `How the last ${SLICES_SHOWN} slices began.` }),
  missing: z.array(z.string()).openapi({ description: 'Objects that are needed and not there.' }),
  numerics: z.string().nullable(),
}).openapi('Checkpoint');

const verifiedSchema = z.object({
  object: z.literal('checkpoint.verification'),
  id: z.string(),
  right: z.boolean().openapi({ description: 'Every byte is.' }),
  complete: z.boolean().openapi({ description: 'false: sealed, and this server has no key: digests and tags were not checked.' }),
  objects: z.int(),
  bytes: z.int(),
  frames: z.int(),
  faults: z.array(z.object({ name: z.string(), reason: z.string(), message: z.string() })),
}).openapi('CheckpointVerification');

const one = <T extends z.ZodType>(description: string, schema: T) => ({ 200: { description, content: { 'application/json': { schema } } }, ...NATIVE_FAILURES });

export function checkpoints(registry: Registry, catalogue: NonNullable<AppOptions['checkpoints']>): void {
  endpoint(registry, {
    method: 'get', path: '/v1/checkpoints', tag: TAG, summary: 'List what is stored of your jobs, by name', scope: 'read',
    query: z.strictObject({
      limit: listLimit,
      after: listAfter,
    }),
    responses: one('The checkpoints', z.object({ object: z.literal('list'), data: z.array(summarySchema), has_more: z.boolean() }).openapi('CheckpointList')),
  }, async ({ caller: { tenant }, query: { limit, after }, signal }) => {
    const page = await catalogue.list({ tenant, limit, after, signal });
    return Response.json({ object: 'list', data: page.checkpoints.map((stored) => summaryOf(stored, catalogue.costOf(stored.bytes))), has_more: page.more });
  });

  endpoint(registry, {
    method: 'get', path: '/v1/checkpoints/{id}', tag: TAG, summary: 'What a job\'s checkpoint consists of', scope: 'read',
    description: 'It goes with its job: DELETE /v1/jobs/{id} erases both.', responses: one('The checkpoint', checkpointSchema),
  }, async ({ c, caller: { tenant }, id, signal }) => {
    c.set('job', jobId(id));
    const anatomy = await catalogue.get(id, { tenant, signal });
    return Response.json(checkpointOf(anatomy, catalogue.costOf(anatomy.bytes)));
  });

  // Where the engine is.
  if (catalogue.verify !== undefined && catalogue.export !== undefined) whole(registry, { verify: catalogue.verify.bind(catalogue), export: catalogue.export.bind(catalogue) });
}

function whole(registry: Registry, catalogue: Pick<WholeCatalogue, 'verify' | 'export'>): void {
  const { services } = registry;

  endpoint(registry, {
    method: 'post', path: '/v1/checkpoints/{id}/verify', tag: TAG, summary: 'Read and check every byte', scope: 'read',
    responses: one('What was found', verifiedSchema),
  }, async ({ c, caller: { tenant }, id, signal }) => {
    c.set('job', jobId(id));
    const { complete, objects, bytes, frames, faults } = await catalogue.verify(id, { tenant, signal });
    const body: z.infer<typeof verifiedSchema> = {
      object: 'checkpoint.verification', id, right: complete && faults.length === 0, complete, objects, bytes, frames, faults: faults.map((fault) => ({ ...fault })),
    };
    return Response.json(body);
  });

  endpoint(registry, {
    method: 'get', path: '/v1/checkpoints/{id}/export', tag: TAG, summary: 'The checkpoint as a file', scope: 'read',
    description: 'One version of it as a tar that `ruminate checkpoint import` takes, every byte verified on its way. An answer that breaks off is no archive.',
    responses: { 200: { description: 'The file', content: { 'application/x-tar': { schema: z.string().openapi({ format: 'binary' }) } } }, ...NATIVE_FAILURES },
  }, async ({ c, caller: { tenant }, id, hold }) => {
    c.set('job', jobId(id));
    const gone = new AbortController();
    const file = await catalogue.export(id, { tenant, signal: gone.signal });
    const release = hold();
    const body = byteStream(file, (error) => {
      release();
      gone.abort();
      if (error !== null) noteFailed(services, c, error);
    });
    return new Response(body, { headers: { 'content-type': 'application/x-tar', 'content-disposition': `attachment; filename="${id}.tar"` } });
  });
}

function summaryOf({ job, objects, bytes, writtenAtMs, content, fault }: StoredJob, usd: number | null): z.infer<typeof summarySchema> {
  return {
    object: 'checkpoint',
    id: job,
    state: content?.head.state ?? null,
    model: content?.model ?? null,
    width: content?.width ?? null,
    tokens: content?.tokens ?? null,
    objects,
    bytes,
    garbage_bytes: content === null ? null : Math.max(0, bytes - content.neededBytes),
    usd_per_month: usd,
    written_at: seconds(writtenAtMs),
    fault: fault?.message ?? null,
  };
}

function checkpointOf({ head, manifest, objects, bytes, bytesByKind, writtenAtMs, garbage, unknown, missing }: Anatomy, usd: number | null): z.infer<typeof checkpointSchema> {
  return {
    object: 'checkpoint',
    id: head.job,
    state: head.state,
    objects,
    bytes,
    garbage_bytes: [...garbage, ...unknown].reduce((sum, object) => sum + object.bytes, 0),
    usd_per_month: usd,
    written_at: seconds(writtenAtMs),
    sealed: manifest !== null && manifest.keys !== null,
    prompt_tokens: manifest?.promptTokens ?? null,
    bytes_by_kind: { ...bytesByKind },
    chains: (manifest?.chains ?? []).map(({ tokens, finish, tails }, chain) => ({
      chain, tokens, finish, tails: [...(manifest?.promptTail === null ? [] : [0]), ...tails.map(({ at }) => at).filter((at) => at > 0)],
    })),
    slices: (manifest?.slices ?? []).slice(-SLICES_SHOWN).map(({ slice, outcome, reason, from, recomputed }) => ({ slice, outcome, reason, from_step: from, tokens_recomputed: recomputed })),
    missing: [...missing],
    numerics: manifest?.numericsId ?? null,
  };
}

function seconds(ms: number | null): number | null {
  return ms === null ? null : Math.floor(ms / 1_000);
}
