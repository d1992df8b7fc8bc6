/** Objects that are written once and never change: whoever writes second finds what the first wrote. */
import { utf8Of } from '../core/bytes.ts';
import { LIMITS } from '../core/limits.ts';
import { textOf } from './canonical.ts';
import { attempts, type Protocol } from './protocol.ts';

/** What is there afterwards: ours, or what was there before. @param bytesMax of either. @throws EngineError ERR_STORE, ERR_CANCELLED. */
export async function putIfAbsent(protocol: Protocol, key: string, text: string, signal: AbortSignal | undefined, bytesMax: number = LIMITS.HEAD_BYTES_MAX): Promise<string> {
  const { store } = protocol;
  const nextAttempt = attempts(protocol, `${store.url}: ${key}`, signal);
  for (;;) {
    const outcome = await store.put(key, [utf8Of(text)], { condition: { kind: 'if_absent' }, signal });
    if (outcome.kind === 'written') return text;
    const found = await store.get(key, { range: { offset: 0, bytes: bytesMax }, bytesMax, signal });
    if (found !== null) return textOf(found.chunks, key);
    await nextAttempt();
  }
}
