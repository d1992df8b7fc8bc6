/** How much JSON a text is, before it is parsed: parsing cannot be cut into turns, and a thousand small things take longer than one large text. */
import { LIMITS } from './limits.ts';

/** Why a text has more in it than anything that is asked for; null: it has not. Of what is no JSON it says nothing. */
export function crowdOf(text: string): string | null {
  if (text.length < LIMITS.JSON_FIELDS_MAX) return null;
  let fields = 0;
  let texts = 0;
  let commas = 0;
  for (let at = 0; at < text.length; at++) {
    switch (text.charCodeAt(at)) {
      case 0x22:
        texts++;
        at = endOfString(text, at);
        if (at < 0) return null;
        break;
      // true, false and null, each by a letter that no other has.
      case 0x72:
      case 0x73:
      case 0x6e:
        texts++;
        break;
      case 0x2c:
        commas++;
        break;
      case 0x3a:
      case 0x5b:
      case 0x7b:
        fields++;
        break;
      default:
    }
    if (fields > LIMITS.JSON_FIELDS_MAX) return `must have at most ${LIMITS.JSON_FIELDS_MAX} fields, objects and lists`;
    if (texts > LIMITS.JSON_TEXTS_MAX) return `must have at most ${LIMITS.JSON_TEXTS_MAX} texts and words`;
    if (commas > LIMITS.JSON_NUMBERS_MAX) return `must have at most ${LIMITS.JSON_NUMBERS_MAX} numbers`;
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
