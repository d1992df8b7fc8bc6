/**
 * What node-llama-cpp makes of a GGUF file; a process of its own, because it brings another native engine.
 *   node llama-cpp.mjs '{"peer": DIR, "model": FILE, "kv": "F32", "texts": [...], "length": 32}'
 * Prints {"prompts": [ids of each text], "greedy": [ids that follow]}, or only the ids of the texts for length 0.
 */
import path from 'node:path';
import { pathToFileURL } from 'node:url';

const { peer, model: modelPath, kv, texts, length } = JSON.parse(process.argv[2]);
const { getLlama } = await import(pathToFileURL(path.join(peer, 'node_modules', 'node-llama-cpp', 'dist', 'index.js')).href);
const llama = await getLlama({ gpu: false, build: 'never', maxThreads: 1, logLevel: 'error', progressLogs: false });
const model = await llama.loadModel({ modelPath, vocabOnly: length === 0 });
const prompts = texts.map((text) => [...model.tokenize(text, true)]);
const greedy = [];
if (length > 0) {
  const context = await model.createContext({ contextSize: 1024, batchSize: 512, threads: 1, flashAttention: false, experimentalKvCacheKeyType: kv, experimentalKvCacheValueType: kv });
  const sequence = context.getSequence();
  for (const prompt of prompts) {
    await sequence.clearHistory();
    const ids = [];
    for await (const token of sequence.evaluate(prompt, { temperature: 0, yieldEogToken: true })) {
      ids.push(token);
      if (ids.length === length || model.isEogToken(token)) break;
    }
    greedy.push(ids);
  }
}
process.stdout.write(JSON.stringify({ prompts, greedy }));
await llama.dispose();
