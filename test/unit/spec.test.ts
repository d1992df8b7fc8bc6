import { describe, expect, test } from 'vitest';
import { parseGenerationConfig, parseSpec, policyOverrides } from '../../engine/job/spec.ts';

const base = { model: 'countdown', prompt: '4 20 8 13 target 59' };

const deep = (levels: number): object => (levels === 0 ? {} : { items: deep(levels - 1) });

function refusal(input: unknown): string {
  try {
    parseSpec(input);
  } catch (error) {
    expect(error).toMatchObject({ code: 'ERR_OPTION', kind: 'caller' });
    return (error as Error).message;
  }
  throw new Error('accepted');
}

describe('a spec', () => {
  test('says what the engine is told over the policy of the model: the same list for the same options', () => {
    expect(policyOverrides(parseSpec(base))).toEqual([]);
    expect(policyOverrides({ policy_options: { window: '8' } })).toEqual([['window', '8']]);
    expect(policyOverrides({ policy: 'kvzap', policy_options: { threshold: '-4', surrogate: 'x' } })).toEqual([['policy', 'kvzap'], ['surrogate', 'x'], ['threshold', '-4']]);
  });

  test('needs a model and a prompt; everything else has a default', () => {
    expect(parseSpec(base)).toEqual(base);
  });

  test('keeps the bounds of every field', () => {
    const full = {
      ...base, variant: 'cr8', seed: (1n << 64n) - 1n, stop: ['x'.repeat(256)], vote: 'majority', early_stop: false, answer: { rule: 'after', marker: 'answer' },
      thinking: null, backend: 'reference', kv: 'bf16', threads: 2, page_slots: 4, kept_fraction: 0.3,
      policy: 'kvzap', policy_options: { threshold: '-4', surrogate: 'x'.repeat(4_096) },
      sampling: { temperature: 0, top_k: 0, top_p: 1, min_p: 0, repetition_penalty: 1, presence_penalty: -2, frequency_penalty: 2, logit_bias: [[3, -100]] },
      format: { kind: 'json_schema', schema: { type: 'object', properties: { a: { type: 'string' } } } }, logprobs: 20, enable_thinking: false, tools: [{ type: 'function', function: { name: 'f', description: '', parameters: { type: 'object' }, strict: true } }], tool_choice: { name: 'f' }, parallel_tool_calls: false, documents: [{ title: 't' }], date: '2024-07-26', template_variables: { thinking_budget: 7 },
      budget: { lengths: [1, 2], width: 2, compression_ratio: 8, kv_read_budget: 1, deadline_ms: 1 }, metadata: { a: 'b' }, user: 'u',
    };
    expect(parseSpec(full)).toEqual(full);
  });

  test.each<[object, RegExp]>([
    [{ format: { kind: 'xml' } }, /^format\.kind must be json_object or json_schema; got "xml"\.$/],
    [{ format: { kind: 'json_schema', schema: [] } }, /^format\.schema must be a JSON object; got a list of 0\.$/],
    [{ format: { kind: 'json_schema', schema: { not: {} } } }, /^format\.schema must be a JSON Schema that can be kept: it has "not", which is not supported\.$/],
    [{ format: { kind: 'json_object', schema: {} } }, /^format\.schema is not an option\.$/],
    [{ logprobs: 21 }, /^logprobs must be an integer from 0 to 20; got 21\.$/],
    [{ model: '' }, /^model must be text of 1 to 4096 bytes; got ""\.$/],
    [{ prompt: 3 }, /^prompt must be text .*; got 3\.$/],
    [{ messages: [{ role: 'user', content: 'x' }] }, /^exactly one of prompt, messages and raw_prompt/],
    [{ prompt: undefined }, /^exactly one of prompt, messages and raw_prompt/],
    [{ prompt: undefined, messages: [] }, /^messages must have 1 to 1024 entries; got 0\.$/],
    [{ prompt: undefined, messages: [{ role: 'user' }] }, /^messages\.0\.content must be text; got nothing\.$/],
    [{ raw_prompt: 'x' }, /^exactly one of prompt, messages and raw_prompt/],
    [{ prompt: undefined, raw_prompt: [] }, /^raw_prompt must be text of 1 to 4194304 bytes or a list of 1 to 1048576 token ids; got a list of 0\.$/],
    [{ prompt: undefined, raw_prompt: [1.5] }, /^raw_prompt must be/],
    [{ instructions: 'x' }, /^instructions must come with messages\.$/],
    [{ metadata: { a: 'x'.repeat(513) } }, /^metadata/],
    [{ metadata: Object.fromEntries(Array.from({ length: 17 }, (_, i) => [`${i}`, ''])) }, /^metadata must have at most 16 pairs\.$/],
    [{ prompt: undefined, messages: 'hi' }, /^messages must be a list; got "hi"\.$/],
    [{ seed: -1 }, /^seed must be an integer from 0 to 18446744073709551615 .*; got -1\.$/],
    [{ seed: 2 ** 53 }, /^seed .* as a bigint\); got 9007199254740992\.$/],
    [{ seed: 1n << 64n }, /^seed/],
    [{ seed: '7' }, /^seed .*; got "7"\.$/],
    [{ budget: { length: 0 } }, /^budget\.length must be an integer from 1 to 1048576; got 0\.$/],
    [{ budget: { length: 1.5 } }, /^budget\.length .*; got 1\.5\.$/],
    [{ budget: { width: 257 } }, /^budget\.width must be an integer from 1 to 256; got 257\.$/],
    [{ budget: { width: 2, lengths: [1] } }, /^budget\.lengths must have one entry for each of 2 chains; got 1\.$/],
    [{ budget: { lengths: [] } }, /^budget\.lengths must have one entry for each of 1 chains; got 0\.$/],
    [{ budget: { length: 1, lengths: [1] } }, /^budget\.length and budget\.lengths/],
    [{ budget: { lengths: [1, 0] } }, /^budget\.lengths\.1 must be an integer from 1/],
    [{ budget: { kv_read_budget: 0 } }, /^budget\.kv_read_budget must be an integer from 1/],
    [{ budget: { compression_ratio: 0.5 } }, /^budget\.compression_ratio must be a number from 1 to 64; got 0\.5\.$/],
    [{ budget: { deadline_ms: Infinity } }, /^budget\.deadline_ms .*; got Infinity\.$/],
    [{ budget: 5 }, /^budget must be an object; got 5\.$/],
    [{ budget: { size: 1 } }, /^budget\.size is not an option\.$/],
    [{ tempreature: 1 }, /^tempreature is not an option\.$/],
    [{ sampling: { temperature: NaN } }, /^sampling\.temperature must be a number from 0 to 10; got NaN\.$/],
    [{ sampling: { top_p: 0 } }, /^sampling\.top_p must be a number above 0 and up to 1; got 0\.$/],
    [{ sampling: { top_p: 1e-60 } }, /^sampling\.top_p must be a number above 0 and up to 1 in float32, where this is 0; got 1e-60\.$/],
    [{ sampling: { min_p: 0.99999999999 } }, /^sampling\.min_p must be a number from 0 to below 1 in float32, where this is 1; got 0\.99999999999\.$/],
    [{ sampling: { min_p: 1e-50 } }, /^sampling\.min_p .* in float32, where this is 0; got 1e-50\.$/],
    [{ sampling: { temperature: 1e-50 } }, /^sampling\.temperature must be a number from 0 to 10 in float32, where this is 0; got 1e-50\.$/],
    [{ sampling: { repetition_penalty: 1e-46 } }, /^sampling\.repetition_penalty .* in float32, where this is 0; got 1e-46\.$/],
    [{ sampling: { presence_penalty: -1e-46 } }, /^sampling\.presence_penalty .* in float32/],
    [{ sampling: { temperature: '1' } }, /^sampling\.temperature must be a number from 0 to 10; got "1"\.$/],
    [{ sampling: { min_p: 1 } }, /^sampling\.min_p must be a number from 0 to below 1; got 1\.$/],
    [{ sampling: { logit_bias: [[1]] } }, /^sampling\.logit_bias\.0 must be a pair/],
    [{ sampling: { logit_bias: [[1, 101]] } }, /^sampling\.logit_bias\.0\.1 must be a number from -100 to 100; got 101\.$/],
    [{ stop: Array(17).fill('x') }, /^stop must have at most 16 entries; got a list of 17\.$/],
    [{ stop: ['é'.repeat(129)] }, /^stop\.0 must be text of 1 to 256 bytes/],
    [{ stop: [''] }, /^stop\.0 must be text/],
    [{ vote: 'best' }, /^vote must be one of majority, first, verifier, none; got "best"\.$/],
    [{ early_stop: 1 }, /^early_stop must be true or false; got 1\.$/],
    [{ answer: { rule: 'guess' } }, /^answer/],
    [{ answer: { rule: 'after' } }, /^answer\.marker must be text/],
    [{ answer: { rule: 'pattern', pattern: '(a+)+' } }, /^answer\.pattern must not repeat a group; got "\(a\+\)\+"\.$/],
    [{ backend: 'cuda' }, /^backend must be one of cpu, reference; got "cuda"\.$/],
    [{ kv: 'fp8' }, /^kv must be one of f32, bf16/],
    [{ threads: 0 }, /^threads must be an integer from 1 to 256/],
    [{ policy: '' }, /^policy must be text of 1 to 64 bytes; got ""\.$/],
    [{ policy_options: [] }, /^policy_options must be an object of texts; got a list of 0\.$/],
    [{ policy_options: { threshold: -4 } }, /^policy_options\.threshold must be text of 1 to 4096 bytes; got -4\.$/],
    [{ policy_options: Object.fromEntries(Array.from({ length: 33 }, (_, i) => [`o${i}`, 'x'])) }, /^policy_options must have at most 32 entries\.$/],
    [{ kept_fraction: 0 }, /^kept_fraction must be a number above 0 and up to 1; got 0\.$/],
    [{ page_slots: 5_000 }, /^page_slots must be an integer from 1 to 4096/],
    [{ prompt: undefined, messages: [{ role: 'user', content: 'x', reasoning_content: 3 }] }, /^messages\.0\.reasoning_content must be text; got 3\.$/],
    [{ prompt: undefined, messages: [{ role: 'user', content: 'x'.repeat(3 << 20), tool_calls: [{ function: { name: 'f', arguments: { x: 'x'.repeat(1 << 20) } } }] }] }, /^messages must have at most 4194304 bytes; got 4194/],
    [{ tools: {} }, /^tools must be a list/],
    [{ tools: ['f'] }, /^tools\.0 must be an object; got "f"\.$/],
    [{ tools: Array.from({ length: 129 }, (_, i) => ({ type: 'function', function: { name: `f${i}` } })) }, /^tools must have at most 128 entries; got a list of 129\.$/],
    [{ tools: [{ type: 'web_search' }] }, /^tools\.0\.type must be function: no other tool is supported; got "web_search"\.$/],
    [{ tools: [{ type: 'function', function: { name: 'a b' } }] }, /^tools\.0\.function\.name must be 1 to 64 letters, digits, "_" or "-"; got "a b"\.$/],
    [{ tools: [{ type: 'function', function: { name: 'f', parameters: deep(33) } }] }, /^tools\.0\.function\.parameters must be a JSON object, at most 32 deep; got an object\.$/],
    [{ tools: [{ type: 'function', function: { name: 'f' } }, { type: 'function', function: { name: 'f' } }] }, /^tools must have different names; got "f" and "f"\.$/],
    [{ tool_choice: 'auto' }, /^tool_choice must be given with tools\.$/],
    [{ tools: [{ type: 'function', function: { name: 'f' } }], tool_choice: { name: 'g' } }, /^tool_choice must name one of tools; got "g"\.$/],
    [{ tool_choice: 'any' }, /^tool_choice must be auto, none, required or \{"name": …\}; got "any"\.$/],
    [{ parallel_tool_calls: true }, /^parallel_tool_calls must be given with tools\.$/],
    [{ documents: [{ big: 1n }] }, /^documents\.0 must be a JSON object; got an object\.$/],
    [{ template_variables: { x: 'x'.repeat(1 << 20) } }, /^template_variables must have at most 1048576 bytes as JSON; got 1048/],
    [{ date: '2024-02-30' }, /^date must be a date like 2024-07-26 or 2024-07-26T14:30:05; got "2024-02-30"\.$/],
    [{ model: 'countdown@cr4', variant: 'cr8' }, /^variant must not be given twice/],
  ])('%o is refused in one sentence with field, range and value', (change, message) => {
    expect(refusal({ ...base, ...change })).toMatch(message);
  });

  test('anything that is not an object is refused', () => {
    for (const input of [null, undefined, 3, 'countdown', []]) expect(refusal(input)).toMatch(/^spec must be an object; got/);
  });
});

describe('generation_config.json', () => {
  test('gives the sampling defaults; foreign keys and nulls are skipped', () => {
    expect(parseGenerationConfig('{"temperature":0.6,"top_k":20,"top_p":0.95,"min_p":null,"eos_token_id":[1,2],"max_length":9}', 'x')).toEqual({
      temperature: 0.6, top_k: 20, top_p: 0.95,
    });
  });

  test('do_sample false means greedy', () => {
    expect(parseGenerationConfig('{"do_sample":false,"temperature":0.6}', 'x').temperature).toBe(0);
  });

  test('an absurd value is named, not used', () => {
    expect(() => parseGenerationConfig('{"top_p":7}', 'generation_config.json')).toThrow(expect.objectContaining({ code: 'ERR_MODEL_CONFIG', message: expect.stringMatching(/top_p must be .*; got 7/) }));
    expect(() => parseGenerationConfig('[]', 'x')).toThrow(expect.objectContaining({ code: 'ERR_MODEL_CONFIG' }));
  });
});
