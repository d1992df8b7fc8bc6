/** OpenAI's lists, in pages: the same query and the same shape for every kind of thing. */
import { z } from '@hono/zod-openapi';

import { listLimit } from '../query.ts';

export const pageQuery = z.strictObject({
  limit: listLimit,
  after: z.string().max(64).optional().openapi({ description: 'The id after which to go on.' }),
});

export function pageSchema<T extends z.ZodType>(item: T) {
  return z.object({ object: z.literal('list'), data: z.array(item), has_more: z.boolean(), first_id: z.string().nullable(), last_id: z.string().nullable() });
}

export function pageResponse(data: readonly { readonly id: string }[], more: boolean): Response {
  return Response.json({ object: 'list', data, has_more: more, first_id: data[0]?.id ?? null, last_id: data.at(-1)?.id ?? null });
}
