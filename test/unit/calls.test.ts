/** Calls in what models write: known as they come, never taken back, and everything else is text. */
import { describe, expect, test } from 'vitest';

import { seededRandom } from '../../engine/adapters/memory-faults.ts';
import { LIMITS } from '../../engine/core/limits.ts';
import { deepseek } from '../../engine/model/calls/deepseek.ts';
import { hermes } from '../../engine/model/calls/hermes.ts';
import { llama } from '../../engine/model/calls/llama.ts';
import { mistral, mistralArgs } from '../../engine/model/calls/mistral.ts';
import { CallParser, type Said } from '../../engine/model/calls/parser.ts';
import { type Call, type CallSyntax, writeCalls } from '../../engine/model/calls/syntax.ts';
import { cpuMs } from '../helpers/cpu.ts';

const SYNTAXES = [hermes, llama, mistral, mistralArgs, deepseek];
const OFFERED = new Set(['f', 'get_weather', 'read-file']);

/** As somebody who reads to the end has it. */
function joined(said: readonly Said[]): readonly (string | Call)[] {
  const all: (string | Call)[] = [];
  for (const piece of said) {
    const last = all.at(-1);
    if (piece.kind === 'text') {
      if (typeof last === 'string') all[all.length - 1] = last + piece.text;
      else all.push(piece.text);
    } else if (piece.name !== undefined) {
      expect(piece.index).toBe(all.filter((item) => typeof item !== 'string').length);
      all.push({ name: piece.name, arguments: piece.arguments });
    } else {
      if (typeof last !== 'object') throw new Error('arguments of no call');
      all[all.length - 1] = { ...last, arguments: last.arguments + piece.arguments };
    }
  }
  return all;
}

function parse(syntax: CallSyntax, parts: readonly string[], most: number = LIMITS.TOOLS_MAX): readonly (string | Call)[] {
  const parser = new CallParser({ syntax, offered: OFFERED, most });
  return joined([...parts.flatMap((part) => parser.push(part)), ...parser.flush()]);
}

const f = (args: string, name = 'f'): Call => ({ name, arguments: args });

describe.each(SYNTAXES.map((syntax) => [syntax.name, syntax] as const))('%s', (_, syntax) => {
  const calls = [f('{"a": [1, {"b": "}\\"{"}], "c": null}'), f('{}', 'get_weather'), f('{"path": "/x y"}', 'read-file')];

  test('reads what it writes, one call and several', () => {
    expect(parse(syntax, [writeCalls(syntax, calls.slice(0, 1))])).toEqual(calls.slice(0, 1));
    expect(parse(syntax, [writeCalls(syntax, calls)])).toEqual(calls);
  });

  test('with one call at most says that one and nothing after it', () => {
    expect(parse(syntax, [`${writeCalls(syntax, calls)} and so on`], 1)).toEqual(calls.slice(0, 1));
  });

  test('gives text beside calls, without the white space between', () => {
    const [before, after] = syntax.bare.first ? ['', 'It may rain.'] : ['I look it up.', 'It may rain.'];
    expect(parse(syntax, [`${before}\n\n${writeCalls(syntax, calls)}\n${after}`])).toEqual([...(before === '' ? [] : [before]), ...calls, after]);
  });

  test('takes a call of what was not offered for text, as it was written', () => {
    for (const text of [writeCalls(syntax, [f('{}', 'g')]), writeCalls(syntax, [f('{}', 'F')]), writeCalls(syntax, [f('[]')])]) {
      expect(parse(syntax, [text]).filter((item) => typeof item !== 'string')).toEqual([]);
      expect(parse(syntax, [text]).join('')).toContain(syntax.markers[0] !== undefined && text.includes(syntax.markers[0]) ? syntax.markers[0] : '{');
    }
  });

  test('cut anywhere gives a part of what the whole gives', () => {
    const whole = writeCalls(syntax, calls.slice(0, 1));
    for (let end = 0; end < whole.length; end++) {
      const [said] = parse(syntax, [whole.slice(0, end)]);
      if (typeof said === 'object') expect((calls[0]?.arguments ?? '').startsWith(said.arguments)).toBe(true);
      else expect(said ?? '').toBe(whole.slice(0, end));
    }
  });

  test('says arguments as they come', () => {
    const parser = new CallParser({ syntax, offered: OFFERED, most: 128 });
    const told = [...writeCalls(syntax, calls.slice(0, 1))].map((char) => parser.push(char)).filter((said) => said.length > 0);
    expect(told.length).toBe(calls[0]?.arguments.length);
    expect(told[0]).toEqual([{ kind: 'call', index: 0, name: 'f', arguments: '{' }]);
  });

  test('gives the same whatever pieces the text comes in, of any text', () => {
    const words = [
      ...syntax.opens, ...syntax.silent, ...syntax.markers, ...syntax.markers.map((marker) => marker.slice(0, -2)), writeCalls(syntax, calls), writeCalls(syntax, calls.slice(1, 2)),
      writeCalls(syntax, calls).slice(0, 40), '{', '}', '"name"', '"f"', ': ', ', ', '"arguments"', '"parameters"', '{"name": "f", "arguments": {}}', '[', ']', '\\', '"', ' ', '\n', ' '.repeat(70), `${syntax.opens[0]} `.repeat(25), `${syntax.opens.at(-1)} `.repeat(25),
      'function', 'null', 'a', '<', '💡', 'x'.repeat(300), '',
    ];
    for (let seed = 0; seed < 300; seed++) {
      const random = seededRandom(seed);
      const text = Array.from({ length: 1 + Math.floor(random() * 7) }, () => words[Math.floor(random() * words.length)]).join('');
      const parts: string[] = [];
      const longest = random() < 0.5 ? 2 : 40;
      for (let rest = text; rest !== ''; rest = rest.slice(parts.at(-1)?.length)) parts.push(rest.slice(0, 1 + Math.floor(random() * longest)));
      const most = random() < 0.1 ? 1 : random() < 0.1 ? 2 : 128;
      const whole = parse(syntax, [text], most);
      expect(parse(syntax, parts, most), `seed ${seed}: ${JSON.stringify(parts)}`).toEqual(whole);
      // Nothing is made up: what is said stands in the text, in its order.
      let at = 0;
      for (const piece of whole.flatMap((item) => (typeof item === 'string' ? [...item] : []))) {
        at = text.indexOf(piece, at) + piece.length;
        expect(at, `seed ${seed}`).toBeGreaterThanOrEqual(piece.length);
      }
    }
  });

  test('is quick on a long text that is made to keep it busy', () => {
    for (const unit of [...syntax.opens, '{', '[', ' ', '\n', `${syntax.opens[0]}{"`, `${syntax.opens[0]} `, writeCalls(syntax, calls.slice(1, 2)), '{"name": "f", "arguments": {', '{"arguments": "']) {
      const text = unit.repeat(Math.ceil(60_000 / unit.length));
      const start = cpuMs();
      parse(syntax, [text]);
      const parser = new CallParser({ syntax, offered: OFFERED, most: 128 });
      for (let at = 0; at < text.length; at += 4) parser.push(text.slice(at, at + 4));
      parser.flush();
      expect(cpuMs() - start, JSON.stringify(unit)).toBeLessThan(15_000);
    }
  });
});

describe('hermes', () => {
  const call = (json: string) => `<tool_call>\n${json}\n</tool_call>`;

  test.each<[string, readonly (string | Call)[]]>([
    [call('{"name": "f", "arguments": {"x": 1}}'), [f('{"x": 1}')]],
    ['<tool_call>{"name":"f","arguments":{}}</tool_call><tool_call>{"name":"get_weather","arguments":{}}</tool_call>', [f('{}'), f('{}', 'get_weather')]],
    [call('{"arguments": {"x": 1}, "name": "f"}'), [f('{"x": 1}')]],
    [call('{"id": 7, "type": "function", "tags": ["a"], "name": "f", "arguments": {"x": 1}, "more": {"y": null}}'), [f('{"x": 1}')]],
    [call('{"name": "f", "parameters": {"x": 1}}'), [f('{"x": 1}')]],
    [call('{"name": "f", "arguments": "{\\"x\\": \\"\\\\n\\"}"}'), [f('{"x": "\\n"}')]],
    [call('{"name": "f"}'), [f('{}')]],
    [call('{"name": "f", "arguments": null}'), [f('{}')]],
    [call('{"name": "get\\u005fweather", "arguments": {}}'), [f('{}', 'get_weather')]],
    // A brace too few, or a word where none can stand: what was said stays, and the rest is as good as it can be.
    ['<tool_call>{"name": "f", "arguments": {"x": 1}</tool_call> ok', [f('{"x": 1}'), 'ok']],
    ['<tool_call>{"name": "f", "arguments": {"x": <tool_call>{"name": "f", "arguments": {}}', [f('{"x": '), f('{}')]],
    ['<tool_call>{"name": "f", "arguments": {"x": 1}} and</tool_call>', [f('{"x": 1}'), 'and</tool_call>']],
    // Within quotes anything may stand.
    [call('{"name": "f", "arguments": {"x": "</tool_call>"}}'), [f('{"x": "</tool_call>"}')]],
    ['<tool_call> not so <tool_call>{"name": "f", "arguments": {}}</tool_call>', ['<tool_call> not so', f('{}')]],
    ['{"name": "f", "arguments": {}}', ['{"name": "f", "arguments": {}}']],
    ['<tool_call>', ['<tool_call>']],
    [call('{"name": "f", "arguments": 3}'), [call('{"name": "f", "arguments": 3}')]],
    [call('{"name": {}, "arguments": {}}'), [call('{"name": {}, "arguments": {}}')]],
    [call('["f"]'), [call('["f"]')]],
    [call('{"arguments": {}}'), [call('{"arguments": {}}')]],
    [' \n\nwords \n', [' \n\nwords \n']],
  ])('%j', (text, said) => {
    expect(parse(hermes, [text])).toEqual(said);
  });

  test('a call that is held back too long is text', () => {
    const long = `{"arguments": {"x": "${'x'.repeat(LIMITS.CALL_HELD_CHARS_MAX)}"}, "name": "f"}`;
    expect(parse(hermes, [call(long)])).toEqual([call(long)]);
    const usual = `{"name": "f", "arguments": {"x": "${'x'.repeat(2 * LIMITS.CALL_HELD_CHARS_MAX)}"}}`;
    expect(parse(hermes, [call(usual)])).toMatchObject([{ name: 'f' }]);
  });

  test('calls past the most that a turn may have are text', () => {
    const one = '<tool_call>{"name": "f", "arguments": {}}</tool_call>';
    expect(parse(hermes, [one.repeat(130)])).toEqual([...Array.from({ length: 128 }, () => f('{}')), one + one]);
  });
});

describe('others', () => {
  test.each<[CallSyntax, string, readonly (string | Call)[]]>([
    [llama, '{"name": "f", "parameters": {"x": 1}}', [f('{"x": 1}')]],
    [llama, '<|python_tag|>{"type": "function", "name": "f", "parameters": {}}', [f('{}')]],
    [llama, 'So: <|python_tag|>{"name": "f", "parameters": {}}', ['So:', f('{}')]],
    [llama, '\n{"name": "f", "parameters": {}}\n{"name": "get_weather", "parameters": {}}', [f('{}'), f('{}', 'get_weather')]],
    [llama, '{"name": "Bob", "age": 3}', ['{"name": "Bob", "age": 3}']],
    [llama, 'The JSON is {"name": "f", "parameters": {}}', ['The JSON is {"name": "f", "parameters": {}}']],
    [llama, '<|python_tag|>brave_search.call(query="x")', ['<|python_tag|>brave_search.call(query="x")']],
    [mistral, '[TOOL_CALLS] [{"name": "f", "arguments": {"x": [1]}, "id": "abcdefgh1"}, {"name": "f", "arguments": {}}]', [f('{"x": [1]}'), f('{}')]],
    [mistral, 'a list [1, 2]', ['a list [1, 2]']],
    [mistralArgs, '[TOOL_CALLS]f[CALL_ID]abcdefgh1[ARGS]{"x": 1}[TOOL_CALLS]get_weather{}', [f('{"x": 1}'), f('{}', 'get_weather')]],
    [deepseek, '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{"x": "```"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>', [f('{"x": "```"}')]],
    [deepseek, 'code: ```json\n{}\n```', ['code: ```json\n{}\n```']],
  ])('%o %j', (syntax, text, said) => {
    expect(parse(syntax, [text])).toEqual(said);
  });
});
