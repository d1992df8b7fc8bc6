/** Long prompts are encoded on threads of their own: to the same tokens, while this one goes on. */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { buildSync } from 'esbuild';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { PromptThreads } from '../../engine/adapters/prompt-threads.ts';
import { type LoadedModel, promptModel } from '../../engine/job/prepare.ts';
import { promptOf } from '../../engine/job/prompt.ts';
import { Session } from '../../engine/job/session.ts';
import { type JobSpec, parseSpec } from '../../engine/job/spec.ts';
import { ChatTemplate } from '../../engine/model/template.ts';
import { ROOT } from '../helpers/setup.ts';

let program: URL;
let loaded: LoadedModel;
/** Of a context in which long prompts fit. */
let model: LoadedModel;
const session = new Session();
mkdirSync(path.join(ROOT, 'build', 'test'), { recursive: true });
const folder = mkdtempSync(path.join(ROOT, 'build', 'test', 'prompt-threads-'));

beforeAll(async () => {
  const outfile = path.join(folder, 'prompt-thread.mjs');
  buildSync({ entryPoints: [path.join(ROOT, 'engine', 'adapters', 'prompt-thread.ts')], outfile, bundle: true, platform: 'node', format: 'esm', target: 'node20', packages: 'external' });
  program = pathToFileURL(outfile);
  loaded = await session.model('countdown@cr2');
  model = { ...loaded, info: { ...loaded.info, maxPositions: 1 << 20 } };
});
afterAll(() => {
  session[Symbol.dispose]();
  rmSync(folder, { recursive: true, force: true });
});

const asking = (words: number): JobSpec => parseSpec({ model: 'countdown', prompt: '4 20 8 13 target 59 '.repeat(words / 6) });
const LONG = 120_000;

describe('threads for prompts', () => {
  test('give the tokens that are given here, and let this thread turn meanwhile', async () => {
    using prompts = new PromptThreads({ program });
    const spec = asking(LONG);
    // The first also loads the tokenizer.
    await prompts.encode(spec, model);
    let turns = 0;
    let done = false;
    const turn = (): void => {
      turns += 1;
      if (!done) setImmediate(turn);
    };
    setImmediate(turn);
    const prompt = await prompts.encode(spec, model);
    done = true;
    expect(prompt).toEqual(promptOf(spec, promptModel(model)));
    expect(prompt.ids.length).toBeGreaterThan(100_000);
    expect(turns).toBeGreaterThan(10);
  });

  test('have the template for chats with tools, and say how calls are written', async () => {
    using prompts = new PromptThreads({ program });
    const forTools = new ChatTemplate('[TOOL_CALLS]{% for m in messages %}{% for call in m.tool_calls or [] %}[TOOL_CALLS]{{ call.function.name }}[ARGS]{{ call.function.arguments | tojson }}{% endfor %}{{ m.content }}{% endfor %}{{ tools | tojson }}');
    const of = { ...model, template: new ChatTemplate('{{ messages[0].content }}', forTools) };
    const spec = parseSpec({ model: 'countdown', prompt: '4 20 8 13 target 59 '.repeat(1_000), tools: [{ type: 'function', function: { name: 'f' } }] });
    const prompt = await prompts.encode(spec, of);
    expect(prompt.syntax).toBe('mistral_args');
    expect(prompt).toEqual(promptOf(spec, promptModel(of)));
    expect(prompt.ids).not.toEqual((await prompts.encode({ ...spec, tools: [] }, of)).ids);
  });

  test('are not begun for a short prompt', async () => {
    using prompts = new PromptThreads({ program: new URL('file:///there/is/none.mjs') });
    const spec = asking(60);
    expect(await prompts.encode(spec, model)).toEqual(promptOf(spec, promptModel(model)));
    await expect(prompts.encode(asking(LONG), model)).rejects.toMatchObject({ code: 'ERR_INTERNAL' });
  });

  test('refuse what is refused here, in the same words', async () => {
    using prompts = new PromptThreads({ program });
    for (const [spec, of] of [
      [asking(LONG), loaded],
      [parseSpec({ model: 'countdown', messages: [{ role: 'nobody', content: 'x'.repeat(5_000) }] }), { ...model, template: null }],
    ] as const) {
      const refusal = (() => {
        try {
          promptOf(spec, promptModel(of));
          return null;
        } catch (error) {
          return error as { readonly code: string; readonly message: string };
        }
      })();
      expect(refusal).not.toBeNull();
      await expect(prompts.encode(spec, of)).rejects.toMatchObject({ code: refusal?.code, message: refusal?.message });
    }
  });

  test('whoever leaves frees his place, whether he waited or was served', async () => {
    using prompts = new PromptThreads({ program, threads: 1 });
    const leave = new AbortController();
    const gone = [prompts.encode(asking(LONG), model, { signal: leave.signal }), prompts.encode(asking(LONG), model, { signal: leave.signal })];
    const stays = prompts.encode(asking(LONG), model);
    leave.abort();
    for (const left of gone) await expect(left).rejects.toMatchObject({ code: 'ERR_CANCELLED' });
    expect((await stays).ids.length).toBeGreaterThan(100_000);
    await expect(prompts.encode(asking(LONG), model, { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'ERR_CANCELLED' });
  });

  test('more than may wait are sent away, and the others are served', async () => {
    using prompts = new PromptThreads({ program, threads: 1 });
    const asked = await Promise.allSettled(Array.from({ length: 20 }, () => prompts.encode(asking(6_000), model)));
    const refused = asked.flatMap((answer) => (answer.status === 'rejected' ? [answer.reason as unknown] : []));
    // One is served, sixteen wait.
    expect(refused).toHaveLength(3);
    for (const reason of refused) expect(reason).toMatchObject({ code: 'ERR_OVERLOADED' });
    expect(await prompts.encode(asking(6_000), model)).toMatchObject({ ids: expect.any(Array) as unknown });
  });

  test('do not encode with another tokenizer than the model in use has', async () => {
    using prompts = new PromptThreads({ program });
    const other = Object.create(model.tokenizer, { digest: { value: '0'.repeat(64) } }) as LoadedModel['tokenizer'];
    await expect(prompts.encode(asking(LONG), { ...model, tokenizer: other })).rejects.toMatchObject({ code: 'ERR_TOKENIZER' });
  });

  test('that are disposed leave nobody waiting', async () => {
    const prompts = new PromptThreads({ program });
    const waiting = [1, 2, 3].map(() => prompts.encode(asking(LONG), model));
    prompts[Symbol.dispose]();
    for (const left of waiting) await expect(left).rejects.toMatchObject({ code: 'ERR_CANCELLED' });
    await expect(prompts.encode(asking(LONG), model)).rejects.toMatchObject({ code: 'ERR_DISPOSED' });
  });
});
