/**
 * Where webhooks may go. A tenant names the address and this server asks it, from inside of whatever network it is in: so that only addresses
 * of the public internet are asked, over TLS. https://cheatsheetseries.owasp.org/cheatsheets/Server_Side_Request_Forgery_Prevention_Cheat_Sheet.html
 */
import ipaddr from 'ipaddr.js';

import { EngineError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';

export interface AddressRules {
  /** For development: http and https to this machine's own addresses, too. */
  readonly allowLoopback: boolean;
}

/** @throws EngineError ERR_OPTION, which names no more than the field. */
export function parseTarget(text: string, rules: AddressRules): URL {
  const refuse = (why: string) => new EngineError('ERR_OPTION', `url must ${why}.`);
  if (text.length > LIMITS.WEBHOOK_URL_CHARS_MAX || !URL.canParse(text)) throw refuse(`be an absolute URL of at most ${LIMITS.WEBHOOK_URL_CHARS_MAX} characters`);
  const url = new URL(text);
  if (url.protocol !== 'https:' && !(rules.allowLoopback && url.protocol === 'http:')) throw refuse('begin with https://');
  if (url.username !== '' || url.password !== '') throw refuse('hold no user name and no password');
  const literal = literalOf(url);
  const isPrivate = literal === null ? !rules.allowLoopback && PRIVATE_NAME.test(url.hostname) : !isAllowed(url, literal, rules);
  if (isPrivate) throw refuse('name a host of the public internet');
  return url;
}

/** Whatever they resolve to: this machine (RFC 6761), this link (RFC 6762), this home (RFC 8375), this network (reserved by ICANN). For development they are judged by that. */
const PRIVATE_NAME = /(^|\.)(localhost|local|internal|home\.arpa)\.?$/;
const GIVEN_OUT = ipaddr.IPv6.parseCIDR('2000::/3');

/** The host, if it is an address and no name: nobody is asked what it resolves to. `new URL` has turned every other way to write one into this. */
export function literalOf({ hostname }: URL): string | null {
  const bare = hostname.replace(/^\[|\]$/g, '');
  return ipaddr.isValid(bare) ? bare : null;
}

/** @param address what the host of `url` is, or resolved to. */
export function isAllowed(url: URL, address: string, { allowLoopback }: AddressRules): boolean {
  if (!ipaddr.isValid(address)) return false;
  // An address of version 4 in one of version 6 is what it holds.
  const judged = ipaddr.process(address);
  const range = judged.range();
  if (range === 'loopback') return allowLoopback;
  // Everything that is special has a name of its own: private, link-local (where clouds keep credentials), carrier-grade NAT, tunnels, documentation.
  // Of version 6 only 2000::/3 is given out: what else has no name may hold an address of version 4 (::/96). https://www.iana.org/assignments/ipv6-address-space
  if (judged instanceof ipaddr.IPv6 && !judged.match(GIVEN_OUT)) return false;
  return range === 'unicast' && url.protocol === 'https:';
}
