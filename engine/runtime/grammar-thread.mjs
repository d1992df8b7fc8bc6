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

const xgrammar = load();
const { vocabulary, eosIds } = workerData;
let compiler = null;
let compiled = null;
/** Of each chain: how many tokens it has taken, and what may come next, once that was asked. */
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
    process.exit(1);
  }
});

async function open(grammar) {
  close();
  compiler ??= await xgrammar.GrammarCompiler.createGrammarCompiler(
    await xgrammar.TokenizerInfo.createTokenizerInfo(vocabularyOf(vocabulary), 'byte_level', false, vocabulary.offsets.length - 1, eosIds));
  compiled = await compiler.compileGrammar(grammar);
}

function close() {
  for (const { matcher } of chains.values()) matcher.dispose();
  chains = new Map();
  compiled?.dispose();
  compiled = null;
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
    state = { matcher: await xgrammar.GrammarMatcher.createGrammarMatcher(compiled), count: 0 };
    chains.set(chain, state);
  }
  for (const token of tokens) {
    if (!state.matcher.acceptToken(token)) return null;
    state.count++;
  }
  const mask = await state.matcher.getNextTokenBitmask();
  return new Uint32Array(mask.buffer, mask.byteOffset, mask.length);
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
