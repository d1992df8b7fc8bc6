/** What every endpoint works with. */
import type { OpenAPIHono } from '@hono/zod-openapi';

import type { Catalogue } from '../engine/checkpoint/catalogue.ts';
import type { WholeCatalogue } from '../engine/checkpoint/whole-catalogue.ts';
import type { Batches } from '../engine/control/batches.ts';
import type { Files } from '../engine/control/files.ts';
import type { Platform } from '../engine/control/platform.ts';
import type { Clock } from '../engine/core/clock.ts';
import type { Telemetry } from '../engine/ports/telemetry.ts';
import type { Webhooks } from '../engine/webhook/webhooks.ts';
import type { Caller, KeyLookup } from './auth.ts';

/** As pino's. Fields carry ids and numbers, never prompts, texts or keys. */
export interface Log {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

/** Of whoever runs jobs. */
export interface WorkerLog extends Log {
  debug(fields: object, message: string): void;
}

export interface AppOptions {
  readonly platform: Platform;
  /** null: whoever reaches the server is the one tenant `local`; for 127.0.0.1 only. */
  readonly auth: KeyLookup | null;
  readonly log: Log;
  /** As open-batches.ts makes them; absent: there are no files and no batches. */
  readonly storage?: {
    readonly files: Pick<Files, 'create' | 'get' | 'list' | 'read' | 'delete'>;
    readonly batches: Pick<Batches, 'create' | 'get' | 'list' | 'cancel'>;
  } | undefined;
  /** What is stored of jobs; absent: it is not shown. */
  readonly checkpoints?: (Pick<Catalogue, 'list' | 'get' | 'costOf'> & Partial<Pick<WholeCatalogue, 'verify' | 'export'>>) | undefined;
  /** Absent: nobody is told of anything. */
  readonly webhooks?: Pick<Webhooks, 'create' | 'list' | 'get' | 'delete' | 'rotate' | 'deliveries' | 'replay'> | undefined;
  /** For GET /metrics; absent: there is none. */
  readonly metrics?: (() => Promise<{ readonly contentType: string; readonly body: string }>) | undefined;
  readonly telemetry?: Telemetry | undefined;
  /** false: nothing of the store is asked for, so that it is ready without. Default: true. */
  readonly asksStore?: boolean | undefined;
  /** Default: timers of the web. */
  readonly clock?: Clock | undefined;
  /** Over HTTP_LIMITS, for machines that differ and for tests. */
  readonly limits?: Partial<AppLimits> | undefined;
  /** Shown in /openapi.json. */
  readonly version: string;
}

export interface AppLimits {
  readonly keepAliveMs: number;
  readonly progressMs: number;
  readonly foregroundMs: number;
  readonly queueAgeMs: number;
}

export interface Services extends AppLimits {
  readonly platform: Platform;
  readonly clock: Clock;
  readonly log: Log;
  readonly telemetry: Telemetry;
  readonly asksStore: boolean;
}

export interface AppEnv {
  /** What whoever serves the app knows of a request: `app.fetch(request, { remote })`. */
  Bindings: {
    /** The address that asks, as the server sees it and not as a header says it; absent: not known, and its failures are not limited. */
    readonly remote?: string | undefined;
  };
  Variables: { requestId: string; caller?: Caller; /** x-ratelimit-*, of a request that was counted. */ rates?: Readonly<Record<string, string>>; job?: string; trace?: string | undefined; /** Of a request that failed: its body. */ asked?: unknown };
}

export type App = OpenAPIHono<AppEnv>;
