/** Functions that a model may call, as OpenAI's two APIs write them, and as a job's spec does. */
import { z } from '@hono/zod-openapi';

import type { OfferedTools } from '../../engine/control/platform.ts';
import { LIMITS } from '../../engine/core/limits.ts';
import type { JobSpec } from '../../engine/job/spec.ts';
import { HttpError } from '../errors.ts';

type Tools = NonNullable<JobSpec['tools']>;
type Choice = NonNullable<JobSpec['tool_choice']>;

const name = z.string().regex(/^[A-Za-z0-9_-]{1,64}$/, { error: 'must be 1 to 64 letters, digits, "_" or "-"' });
const type = z.literal('function', { error: 'must be "function": no other type of tool is supported' });
const declaration = {
  name,
  description: z.string().optional(),
  parameters: z.record(z.string(), z.unknown()).optional().openapi({ description: 'A JSON schema of an object.' }),
  strict: z.boolean().optional(),
} as const;
const declared = z.strictObject(declaration);
const words = z.enum(['none', 'auto', 'required']);
const choiceError = { error: 'must be "none", "auto", "required" or one function' };

/** An identifier that a client may have made up itself. */
export const callId = z.string().min(1).max(256);
export const call = z.strictObject({ name, arguments: z.string() });

const chatTool = z.strictObject({ type, function: declared }).openapi('ChatTool');
export const chatTools = z.array(chatTool).max(LIMITS.TOOLS_MAX);
export const chatToolChoice = z.union([words, z.strictObject({ type: z.literal('function'), function: z.strictObject({ name }) })], choiceError);
export const chatCalls = z.array(z.strictObject({ id: callId, type: z.literal('function'), function: call })).max(LIMITS.TOOLS_MAX);

const responseTool = z.strictObject({ type, ...declaration }).openapi('ResponseTool');
export const responseTools = z.array(responseTool).max(LIMITS.TOOLS_MAX);
/** As a response repeats it: OpenAI's clients expect these fields. */
export const repeatedTools = z.array(responseTool.extend({ parameters: declaration.parameters.nullable(), strict: z.boolean().nullable() }).openapi('RepeatedTool'));

export const responseToolChoice = z.union([words, z.strictObject({ type: z.literal('function'), name })], choiceError);

export interface AskedTools {
  readonly tools: readonly z.infer<typeof declared>[] | undefined;
  readonly choice: Choice | undefined;
  readonly parallel: boolean | undefined;
}

/** The spec's fields. What says something about tools says nothing without them. @throws HttpError */
export function toolsSpec({ tools = [], choice, parallel }: AskedTools): Pick<JobSpec, 'tools' | 'tool_choice' | 'parallel_tool_calls'> {
  if (tools.length === 0) {
    const given = choice !== undefined && choice !== 'none' ? 'tool_choice' : parallel === true ? 'parallel_tool_calls' : null;
    if (given !== null) throw new HttpError('invalid_value', `${given} must not be given without tools.`, { param: given });
    return {};
  }
  return {
    tools: tools.map((tool) => ({
      type: 'function',
      function: {
        name: tool.name,
        ...(tool.description === undefined ? {} : { description: tool.description }),
        ...(tool.parameters === undefined ? {} : { parameters: tool.parameters }),
        ...(tool.strict === undefined ? {} : { strict: tool.strict }),
      },
    })),
    ...(choice === undefined ? {} : { tool_choice: choice }),
    ...(parallel === undefined ? {} : { parallel_tool_calls: parallel }),
  };
}

type Message = NonNullable<JobSpec['messages']>[number];

/** Results answer calls that were made before them. @throws HttpError @param param of the message, in the request. */
export function checkAnswers(messages: readonly Message[], param: (index: number) => string): void {
  const made = new Set<string>();
  for (const [index, { role, tool_calls: calls = [], tool_call_id: answered }] of messages.entries()) {
    for (const { id } of calls) made.add(id ?? '');
    if (role !== 'tool' || made.has(answered ?? '')) continue;
    throw new HttpError('invalid_value', `${param(index)} must answer a call of an earlier turn, and none has its identifier.`, { param: param(index) });
  }
}

/** As a response repeats it. */
export function responseToolsOf(offered: OfferedTools | null, asked: { readonly tool_choice?: 'none' | undefined; readonly parallel_tool_calls?: boolean | undefined }): { tools: z.infer<typeof repeatedTools>; tool_choice: z.infer<typeof responseToolChoice>; parallel_tool_calls: boolean } {
  if (offered === null) return { tools: [], tool_choice: asked.tool_choice ?? 'auto', parallel_tool_calls: asked.parallel_tool_calls ?? true };
  const { tools, choice, parallel } = offered;
  return {
    tools: tools.map(({ function: { name: named, description, parameters, strict } }: Tools[number]) => ({
      type: 'function', name: named, ...(description === undefined ? {} : { description }), parameters: parameters ?? null, strict: strict ?? null,
    })),
    tool_choice: typeof choice === 'string' ? choice : { type: 'function', name: choice.name },
    parallel_tool_calls: parallel,
  };
}
