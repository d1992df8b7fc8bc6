/**
 * The notice that EC2 gives before it takes a Spot machine back: asked of the instance's metadata service every five seconds, as AWS advises,
 * with a session token (IMDSv2). The same notice as EventBridge sends it is read by `interruptionOf`.
 * https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
 */
import type { Clock } from '../core/clock.ts';
import { linkSignals, untilAborted } from '../core/waiting.ts';

export interface Interruption {
  readonly action: 'terminate' | 'stop' | 'hibernate';
  /** ISO 8601; null: it is not said. */
  readonly at: string | null;
  /** null: this machine. */
  readonly instance: string | null;
}

export interface SpotOptions {
  readonly clock: Clock;
  /** Stops asking. */
  readonly signal: AbortSignal;
  /** Default: AWS's own variable for it, AWS_EC2_METADATA_SERVICE_ENDPOINT, else the link-local address. */
  readonly endpoint?: string | undefined;
  readonly everyMs?: number | undefined;
  /** The first failure of a row of them. */
  readonly onTrouble?: ((error: unknown) => void) | undefined;
}

const ENDPOINT = 'http://169.254.169.254';
const EVERY_MS = 5_000;
const CALL_MS = 2_000;
const TOKEN_S = 21_600;
const ACTIONS = ['terminate', 'stop', 'hibernate'] as const;
const BYTES_MAX = 10_000;

/** Resolves with the notice; null when `signal` aborts. A service that does not answer is asked again. */
export async function untilInterrupted({ clock, signal, endpoint = process.env.AWS_EC2_METADATA_SERVICE_ENDPOINT ?? ENDPOINT, everyMs = EVERY_MS, onTrouble }: SpotOptions): Promise<Interruption | null> {
  let token: string | null = null;
  let isTroubled = false;
  while (!signal.aborted) {
    try {
      token ??= await ask(endpoint, { clock, signal, method: 'PUT', path: '/latest/api/token', headers: { 'x-aws-ec2-metadata-token-ttl-seconds': `${TOKEN_S}` } });
      const notice = await ask(endpoint, { clock, signal, method: 'GET', path: '/latest/meta-data/spot/instance-action', headers: { 'x-aws-ec2-metadata-token': token ?? '' } });
      const found = notice === null ? null : interruptionOf(parse(notice));
      if (found !== null) return found;
      isTroubled = false;
    } catch (error) {
      if (signal.aborted) return null;
      // It may be over, or of another boot.
      token = null;
      if (!isTroubled) onTrouble?.(error);
      isTroubled = true;
    }
    await untilAborted(clock, everyMs, signal);
  }
  return null;
}

/** As the metadata service has it, or an event of EventBridge; null: it is no such notice. */
export function interruptionOf(value: unknown): Interruption | null {
  const { action, time, source, detail, ...event } = (typeof value === 'object' && value !== null ? value : {}) as Record<string, unknown>;
  const at = typeof time === 'string' ? time : null;
  if (isAction(action)) return { action, at, instance: null };
  if (source !== 'aws.ec2' || event['detail-type'] !== 'EC2 Spot Instance Interruption Warning' || typeof detail !== 'object' || detail === null) return null;
  const { 'instance-action': said, 'instance-id': instance } = detail as Record<string, unknown>;
  return isAction(said) && typeof instance === 'string' ? { action: said, at, instance } : null;
}

interface Ask {
  readonly clock: Clock;
  readonly signal: AbortSignal;
  readonly method: 'GET' | 'PUT';
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
}

/** null: 404, which is how it says that there is nothing. */
async function ask(endpoint: string, { clock, signal, method, path, headers }: Ask): Promise<string | null> {
  using late = clock.timeout(CALL_MS);
  using either = linkSignals(signal, late.signal);
  const response = await fetch(endpoint.replace(/\/$/, '') + path, { method, headers, signal: either.signal, redirect: 'error' });
  const text = (await response.text()).slice(0, BYTES_MAX);
  if (response.status === 404) return null;
  if (!response.ok) throw new Error(`the metadata service answered ${response.status} to ${method} ${path}`);
  return text;
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function isAction(value: unknown): value is Interruption['action'] {
  return ACTIONS.includes(value as Interruption['action']);
}
