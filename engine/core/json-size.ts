/** How much JSON a text is, before it is parsed: parsing cannot be cut into turns, and a thousand small things take longer than one large text. */
import { LIMITS } from './limits.ts';

/** What a character outside of texts stands for; all others are nothing to count. */
const [NOTHING, QUOTE, WORD, COMMA, FIELD] = [0, 1, 2, 3, 4] as const;
const KINDS = new Uint8Array(128);
for (const [kind, chars] of [[QUOTE, '"'], [WORD, 'rsn'], [COMMA, ','], [FIELD, ':[{']] as const) {
  // true, false and null: each by a letter that no other has.
  for (const char of chars) KINDS[char.charCodeAt(0)] = kind;
}

/** Why a text has more in it than anything that is asked for; null: it has not. Of what is no JSON it says nothing. */
export function crowdOf(text: string): string | null {
  if (text.length < LIMITS.JSON_FIELDS_MAX) return null;
  let fields = 0;
  let texts = 0;
  let commas = 0;
  for (let at = 0; at < text.length; at++) {
    const kind = KINDS[text.charCodeAt(at)] ?? NOTHING;
    if (kind === NOTHING) continue;
    if (kind === FIELD) {
      if (++fields > LIMITS.JSON_FIELDS_MAX) return `must have at most ${LIMITS.JSON_FIELDS_MAX} fields, objects and lists`;
    } else if (kind === COMMA) {
      if (++commas > LIMITS.JSON_NUMBERS_MAX) return `must have at most ${LIMITS.JSON_NUMBERS_MAX} numbers`;
    } else {
      if (++texts > LIMITS.JSON_TEXTS_MAX) return `must have at most ${LIMITS.JSON_TEXTS_MAX} texts and words`;
      if (kind === WORD) continue;
      at = endOfString(text, at);
      if (at < 0) return null;
    }
  }
  return null;
}

/** The quote that closes what opens at `from`; -1: there is none. */
function endOfString(text: string, from: number): number {
  for (let at = text.indexOf('"', from + 1); at >= 0; at = text.indexOf('"', at + 1)) {
    let first = at;
    while (text.charCodeAt(first - 1) === 0x5c) first--;
    if ((at - first) % 2 === 0) return at;
  }
  return -1;
}
