/** What a models store says it has. */
import { textOfBytes } from '../core/bytes.ts';
import { LIMITS } from '../core/limits.ts';
import type { CallOptions, ObjectStore } from '../ports/object-store.ts';
import { type Card, NAME_PATTERN, REVISION_PATTERN, parseCard } from './card.ts';
import { LATEST, cardKey } from './store-layout.ts';

/** Every model's. @throws EngineError ERR_STORE, ERR_CANCELLED. */
export async function modelNames(store: ObjectStore, options: CallOptions = {}): Promise<string[]> {
  const names: string[] = [];
  for await (const { key } of store.list('', options)) {
    const name = /^([^/]+)\/model\.json$/.exec(key)?.[1];
    if (name !== undefined && NAME_PATTERN.test(name)) names.push(name);
  }
  return names;
}

/** Of one model, the one pushed last first, as far as the store has a clock. @throws EngineError ERR_STORE, ERR_CANCELLED. */
export async function revisionsOf(store: ObjectStore, name: string, options: CallOptions = {}): Promise<readonly string[]> {
  const found: { readonly revision: string; readonly atMs: number }[] = [];
  const prefix = cardKey(name, 'x').slice(0, -'x/model.json'.length);
  for await (const { key, writtenAtMs } of store.list(prefix, options)) {
    const revision = /^([^/]+)\/model\.json$/.exec(key.slice(prefix.length))?.[1];
    if (revision !== undefined && REVISION_PATTERN.test(revision)) found.push({ revision, atMs: writtenAtMs ?? 0 });
  }
  return found.sort((a, b) => b.atMs - a.atMs).map(({ revision }) => revision);
}

/** @param revision default: the one pushed last. null: there is no such model. @throws EngineError ERR_MODEL_CONFIG, ERR_STORE, ERR_CANCELLED. */
export async function readCard(store: ObjectStore, name: string, { revision = LATEST, ...options }: CallOptions & { readonly revision?: string } = {}): Promise<Card | null> {
  const body = await store.get(cardKey(name, revision), { ...options, bytesMax: LIMITS.JSON_BYTES_MAX });
  return body === null ? null : parseCard(textOfBytes(body.chunks), `${store.url}/${name}`);
}

/** @throws EngineError as `readCard`: one that cannot be read is a mistake that somebody should see. */
export async function listCards(store: ObjectStore, options: CallOptions = {}): Promise<Card[]> {
  const cards: Card[] = [];
  for (const name of await modelNames(store, options)) {
    const card = await readCard(store, name, options);
    if (card !== null) cards.push(card);
  }
  return cards;
}
