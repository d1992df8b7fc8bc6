/**
 * The notice that EC2 gives before it takes a Spot machine back: asked of the instance's metadata service every five seconds, as AWS advises,
 * with a session token (IMDSv2). The same notice as EventBridge sends it, of a machine or of a task of ECS, is read by `interruptionOf`; notices.ts hears it.
 * https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
 * https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-capacity-providers.html
 */
import type { Clock } from '../core/clock.ts';
import { linkSignals, untilAborted } from '../core/waiting.ts';

export interface Interruption {
  readonly action: 'terminate' | 'stop' | 'hibernate';
  /** ISO 8601; null: it is not said. */
  readonly at: string | null;
  /** Whom EventBridge means: a machine, or a task by its ARN. Both null: this machine. */
  readonly instance: string | null;
  readonly task: string | null;
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
const TOKEN = 'x-aws-ec2-metadata-token';
const ACTIONS = ['terminate', 'stop', 'hibernate'] as const;
const BYTES_MAX = 10_000;

/** Resolves with the notice; null when `signal` aborts. A service that does not answer is asked again. */
export async function untilInterrupted({ clock, signal, endpoint = process.env.AWS_EC2_METADATA_SERVICE_ENDPOINT ?? ENDPOINT, everyMs = EVERY_MS, onTrouble }: SpotOptions): Promise<Interruption | null> {
  let token: string | null = null;
  let isTroubled = false;
  while (!signal.aborted) {
    try {
      token ??= await tokenOf(endpoint, { clock, signal });
      const notice = await ask(endpoint, { clock, signal, method: 'GET', path: '/latest/meta-data/spot/instance-action', headers: { [TOKEN]: token ?? '' } });
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

/** As the metadata service has it, or an event of EventBridge; null: it is no such notice. A recommendation to rebalance is none: two minutes are enough. */
export function interruptionOf(value: unknown): Interruption | null {
  const { action, time, source, detail, 'detail-type': type } = (typeof value === 'object' && value !== null ? value : {}) as Record<string, unknown>;
  const at = typeof time === 'string' ? time : null;
  if (isAction(action)) return { action, at, instance: null, task: null };
  const { 'instance-action': said, 'instance-id': instance, stopCode, taskArn: task } = (typeof detail === 'object' && detail !== null ? detail : {}) as Record<string, unknown>;
  if (source === 'aws.ec2' && type === 'EC2 Spot Instance Interruption Warning') return isAction(said) && typeof instance === 'string' ? { action: said, at, instance, task: null } : null;
  if (source === 'aws.ecs' && type === 'ECS Task State Change') return stopCode === 'SpotInterruption' && typeof task === 'string' ? { action: 'terminate', at, instance: null, task } : null;
  return null;
}

/** Who a worker is to those who give notice. */
export interface Whoami {
  readonly instance: string | null;
  readonly task: string | null;
}

/** As its variable says (RUMINATE_INSTANCE), else the metadata services of EC2 and ECS; null of what neither tells. */
export async function whoami({ clock, signal, environment = process.env }: Pick<SpotOptions, 'clock' | 'signal'> & { readonly environment?: NodeJS.ProcessEnv }): Promise<Whoami> {
  const machine = environment.AWS_EC2_METADATA_SERVICE_ENDPOINT ?? ENDPOINT;
  const told = environment.RUMINATE_INSTANCE ?? '';
  const instance = told !== '' ? told : await tokenOf(machine, { clock, signal }).then((token) => ask(machine, { clock, signal, method: 'GET', path: '/latest/meta-data/instance-id', headers: { [TOKEN]: token ?? '' } })).catch(() => null);
  const tasks = environment.ECS_CONTAINER_METADATA_URI_V4;
  const found = tasks === undefined ? null : await ask(tasks, { clock, signal, method: 'GET', path: '/task', headers: {} }).catch(() => null);
  const { TaskARN: task } = (found === null ? {} : (parse(found) ?? {})) as { readonly TaskARN?: unknown };
  return { instance, task: typeof task === 'string' ? task : null };
}

function tokenOf(endpoint: string, call: Pick<Ask, 'clock' | 'signal'>): Promise<string | null> {
  return ask(endpoint, { ...call, method: 'PUT', path: '/latest/api/token', headers: { 'x-aws-ec2-metadata-token-ttl-seconds': `${TOKEN_S}` } });
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
