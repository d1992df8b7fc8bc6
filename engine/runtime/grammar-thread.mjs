/**
 * A thread of xgrammar (WebAssembly): which tokens may come next, by a grammar and the tokens so far. A thread, because compiling a grammar against
 * a large vocabulary takes a second, because some take for ever, and because what xgrammar refuses aborts its whole instance: then the thread ends.
 * Plain JavaScript, since a thread begins with a file as it is. Started by grammar.ts, which has the types of what is sent.
 */
import { readFileSync } from 'node:fs';
import Module, { createRequire } from 'node:module';
import { parentPort, workerData } from 'node:worker_threads';

/** What xgrammar says before it aborts: one line, without the path of its source. */
let said = '';
console.error = (...words) => {
  said ||= words.join(' ').replace(/^\[FATAL\]\s*\S+:\d+:\s*/, '').split('\n', 1)[0].slice(0, 300);
};
console.warn = console.log = () => undefined;

// xgrammar lets half a surrogate pair and other bytes that are no UTF-8 pass as a character; decoded they would be several.
/** Of a character that has begun, what the next byte may be and where that leads: [least, most, next]. */
const NEXT = [null, [0x80, 0xbf, 0], [0x80, 0xbf, 1], [0x80, 0xbf, 2], [0xa0, 0xbf, 1], [0x80, 0x9f, 1], [0x90, 0xbf, 2], [0x80, 0x8f, 2]];
const WHOLE = 0;
const WRONG = -1;

const xgrammar = load();
const { vocabulary, eosIds } = workerData;
const utf8 = utf8Masks(vocabulary);
/** Grammars that are kept compiled, the newest last: clients ask for the same schema again, and one takes megabytes. */
const COMPILED_MAX = 4;
const grammars = new Map();
let compiler = null;
let compiled = null;
/** Of each chain: its matcher, how many tokens that has taken, and where in a character they end. */
let chains = new Map();

parentPort.on('message', async ({ id, grammar, asked }) => {
  try {
    if (grammar !== undefined) {
      await open(grammar);
      return parentPort.postMessage({ id });
    }
    const masks = [];
    for (const { chain, from, tokens } of asked) masks.push(await maskOf(chain, from, tokens));
    parentPort.postMessage({ id, masks });
  } catch (error) {
    parentPort.postMessage({ id, refused: said || String(error?.message ?? error) });
  }
});

async function open(grammar) {
  for (const { matcher } of chains.values()) matcher.dispose();
  chains = new Map();
  compiler ??= await xgrammar.GrammarCompiler.createGrammarCompiler(
    await xgrammar.TokenizerInfo.createTokenizerInfo(vocabularyOf(vocabulary), 'byte_level', false, vocabulary.offsets.length - 1, eosIds), false);
  compiled = grammars.get(grammar) ?? (await compiler.compileGrammar(grammar));
  grammars.delete(grammar);
  grammars.set(grammar, compiled);
  const [oldest] = grammars;
  if (grammars.size <= COMPILED_MAX || oldest === undefined) return;
  grammars.delete(oldest[0]);
  oldest[1].dispose();
}

/** null: the tokens are not of the grammar. */
async function maskOf(chain, from, tokens) {
  let state = chains.get(chain);
  if (state !== undefined && state.count !== from) {
    state.matcher.dispose();
    state = undefined;
  }
  if (state === undefined) {
    if (from !== 0) throw new Error(`chain ${chain} was asked for from token ${from} on`);
    state = { matcher: await xgrammar.GrammarMatcher.createGrammarMatcher(compiled), count: 0, character: WHOLE };
    chains.set(chain, state);
  }
  for (const token of tokens) {
    if (!state.matcher.acceptToken(token)) return null;
    state.count++;
    state.character = after(state.character, vocabulary, token);
  }
  const mask = await state.matcher.getNextTokenBitmask();
  return Uint32Array.from(mask, (word, i) => word & utf8[state.character][i]);
}

function step(character, byte) {
  if (character !== WHOLE) return byte >= NEXT[character][0] && byte <= NEXT[character][1] ? NEXT[character][2] : WRONG;
  if (byte < 0x80) return WHOLE;
  if (byte < 0xc2 || byte > 0xf4) return WRONG;
  if (byte < 0xe0) return 1;
  if (byte < 0xf0) return byte === 0xe0 ? 4 : byte === 0xed ? 5 : 2;
  return byte === 0xf0 ? 6 : byte === 0xf4 ? 7 : 3;
}

function after(character, { bytes, offsets }, token) {
  let now = character;
  for (let at = offsets[token]; at < offsets[token + 1] && now !== WRONG; at++) now = step(now, bytes[at]);
  return now;
}

/** For each place in a character: the tokens that go on from there and are UTF-8 so far. */
function utf8Masks(vocabulary) {
  const tokens = vocabulary.offsets.length - 1;
  return NEXT.map((_, character) => {
    const mask = new Uint32Array(Math.ceil(tokens / 32));
    for (let token = 0; token < tokens; token++) if (after(character, vocabulary, token) !== WRONG) mask[token >> 5] |= 1 << (token & 31);
    return mask;
  });
}

/** xgrammar takes tokens as text. In GPT-2's alphabet, one character for each byte, any bytes are; a token without bytes is never drawn. */
function vocabularyOf({ bytes, offsets }) {
  const alphabet = [];
  let next = 256;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    alphabet.push(String.fromCharCode(printable ? byte : next++));
  }
  const tokens = [];
  for (let id = 0; id + 1 < offsets.length; id++) {
    let token = '';
    for (let at = offsets[id]; at < offsets[id + 1]; at++) token += alphabet[bytes[at]];
    tokens.push(token);
  }
  return tokens;
}

/** Its package says that it is a module of ECMAScript and holds one of CommonJS: Node loads it by neither rule. */
function load() {
  const file = createRequire(import.meta.url).resolve('@mlc-ai/web-xgrammar');
  const module = new Module(file);
  module.filename = file;
  module._compile(readFileSync(file, 'utf8'), file);
  return module.exports;
}
