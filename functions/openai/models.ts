/** GET /v1/models: the variants of every model, with what they leave of the cache and what the efforts mean for them. */
import { z } from '@hono/zod-openapi';

import type { ModelView } from '../../engine/control/platform.ts';
import { EngineError } from '../../engine/core/errors.ts';
import { type Registry, endpoint } from '../endpoint.ts';
import { findModel } from './budget.ts';
import { type Effort, defaultLength, presetOf } from './effort.ts';
import { OPENAI_FAILURES } from './errors.ts';

const preset = z.object({ length: z.int(), width: z.int() });

const modelSchema = z.object({
  id: z.string().openapi({ example: 'countdown@cr8' }),
  object: z.literal('model'),
  created: z.int().openapi({ description: 'Always 0: a model has no day of birth here.' }),
  owned_by: z.literal('ruminate'),
  hyperscale: z.object({
    compression_ratio: z.number(),
    context: z.int().openapi({ description: 'Tokens of prompt and answer.' }),
    default: z.boolean().openapi({ description: 'The variant that the model\'s name alone means.' }),
    efforts: z.object({ low: preset, medium: preset, high: preset }).openapi({ description: 'What `reasoning_effort` asks for; the prompt takes its part of `length`.' }),
  }),
}).openapi('Model');

const listSchema = z.object({ object: z.literal('list'), data: z.array(modelSchema) });

export function models(registry: Registry): void {
  const { platform } = registry.services;
  endpoint(registry, {
    method: 'get',
    path: '/v1/models',
    tag: 'OpenAI',
    summary: 'List the models',
    scope: 'read',
    responses: { 200: { description: 'The models', content: { 'application/json': { schema: listSchema } } }, ...OPENAI_FAILURES },
  }, async ({ caller: { tenant }, signal }) =>
    Response.json({ object: 'list', data: (await platform.models({ tenant, signal })).map((view) => modelOf(view)) }));

  endpoint(registry, {
    method: 'get',
    path: '/v1/models/{id}',
    tag: 'OpenAI',
    summary: 'Look at a model',
    scope: 'read',
    responses: { 200: { description: 'The model', content: { 'application/json': { schema: modelSchema } } }, ...OPENAI_FAILURES },
  }, async ({ caller: { tenant }, signal, id }) => {
    const view = findModel(await platform.models({ tenant, signal }), id);
    if (view === null) throw new EngineError('ERR_MODEL_NOT_FOUND', 'No model of that name.');
    return Response.json(modelOf(view));
  });
}

function modelOf({ id, compression_ratio, context, default: isDefault }: ModelView): z.infer<typeof modelSchema> {
  const length = defaultLength(context);
  const of = (effort: Effort) => {
    const chosen = presetOf(effort, length, compression_ratio);
    return { length: chosen.length ?? length, width: chosen.width };
  };
  const efforts = { low: of('low'), medium: of('medium'), high: of('high') };
  return { id, object: 'model', created: 0, owned_by: 'ruminate', hyperscale: { compression_ratio, context, default: isDefault, efforts } };
}
