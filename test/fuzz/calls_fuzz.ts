/** Any bytes as what a model writes, in every syntax of calls and in any pieces: the same is said, and nothing is made up. */
import { deepseek } from '../../engine/model/calls/deepseek.ts';
import { hermes } from '../../engine/model/calls/hermes.ts';
import { llama } from '../../engine/model/calls/llama.ts';
import { mistral, mistralArgs } from '../../engine/model/calls/mistral.ts';
import { CallParser, type CallRules, type Said } from '../../engine/model/calls/parser.ts';

const OFFERED = new Set(['f', 'get_weather']);

export function fuzz(data: Uint8Array): void {
  const [first = 0] = data;
  const text = new TextDecoder('utf-8', { ignoreBOM: true }).decode(data.subarray(1));
  for (const syntax of [hermes, llama, mistral, mistralArgs, deepseek]) {
    const rules: CallRules = { syntax, offered: OFFERED, most: first % 16 === 0 ? 1 : 3 };
    const whole = said(rules, [text]);
    const parts: string[] = [];
    for (let at = 0; at < text.length; at += 1 + (first % 7)) parts.push(text.slice(at, at + 1 + (first % 7)));
    if (said(rules, parts) !== whole) throw new Error(`${syntax.name}: other pieces, other calls`);
    if (whole.length > 16 * text.length + 64) throw new Error(`${syntax.name}: more was said than there is`);
  }
}

function said(rules: CallRules, parts: readonly string[]): string {
  const parser = new CallParser(rules);
  let all = '';
  for (const piece of [...parts.flatMap((part) => parser.push(part)), ...parser.flush()] as Said[]) {
    if (piece.kind === 'text') all += piece.text;
    else all += `${piece.name === undefined ? '' : `\0${piece.index}:${piece.name}\0`}${piece.arguments}`;
  }
  return all;
}
