/** One bundle on what runs functions: Node, Lambda, workerd. Each start is an instance of its own. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import type { Readable } from 'node:stream';
import { pathToFileURL } from 'node:url';

import { Log, LogLevel, Miniflare } from 'miniflare';
import OpenAI from 'openai';

import type { Front } from '../../functions/front.ts';
import { listen } from '../../functions/node.ts';
import { type BuiltFunction, bundleFunctions } from '../../scripts/functions.mjs';
import { type LambdaFunction, startLambda } from './lambda.ts';

export type Environment = Readonly<Record<string, string>>;

export interface Instance extends AsyncDisposable {
  readonly url: string;
}

/** Of workerd: what it promises to be for ever. */
const COMPATIBILITY = '2026-04-01';
/** As docs/FUNCTIONS.md says. */
const FLAGS = ['enable_request_signal'];

/** Bundles of functions in a folder of their own. */
export class Bundles implements Disposable {
  readonly folder = mkdtempSync(path.join(os.tmpdir(), 'ruminate-functions-'));
  #instances = 0;

  private constructor(readonly texts: ReadonlyMap<string, string>) {}

  static async build(...names: readonly string[]): Promise<Bundles> {
    return Bundles.of(await bundleFunctions(names));
  }

  static of(built: readonly BuiltFunction[]): Bundles {
    const bundles = new Bundles(new Map(built.map(({ name, front }) => [name, front ?? ''])));
    for (const { name, front, index } of built) {
      mkdirSync(bundles.#at(name), { recursive: true });
      if (front !== null) writeFileSync(path.join(bundles.#at(name), 'front.mjs'), front);
      writeFileSync(path.join(bundles.#at(name), 'index.mjs'), index);
    }
    return bundles;
  }

  async onNode(name: string, environment: Environment): Promise<Instance> {
    const { default: front } = (await import(`${pathToFileURL(path.join(this.#at(name), 'front.mjs')).href}?instance=${this.#instances++}`)) as { default: Front };
    front.open(environment);
    const { url, end } = await listen({ fetch: (request) => front.answer(request), host: '127.0.0.1', port: 0 });
    return { url, [Symbol.asyncDispose]: end };
  }

  async onWorkerd(name: string, environment: Environment): Promise<Instance> {
    const miniflare = new Miniflare({
      modules: [{ type: 'ESModule', path: 'front.mjs', contents: this.texts.get(name) ?? '' }],
      compatibilityDate: COMPATIBILITY, compatibilityFlags: FLAGS, bindings: environment, host: '127.0.0.1', port: 0, cf: false, log: new Log(LogLevel.ERROR), handleRuntimeStdio: (stdout: Readable, stderr: Readable) => {
        stdout.resume();
        stderr.resume();
      },
    });
    const url = (await miniflare.ready).href.replace(/\/$/, '');
    return { url, [Symbol.asyncDispose]: () => miniflare.dispose() };
  }

  async onLambda(name: string, environment: Environment, ric: string): Promise<LambdaFunction> {
    return await startLambda(ric, this.#at(name), environment);
  }

  #at(name: string): string {
    return path.join(this.folder, name);
  }

  [Symbol.dispose](): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

export function openaiAt({ url }: Instance, apiKey: string): OpenAI {
  return new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 });
}
