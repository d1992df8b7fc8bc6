import type { Metafile } from 'esbuild';

/** What TypeScript callers use of functions.mjs. */
export declare const BYTES_MAX: number;
export declare const FUNCTIONS: readonly string[];
export declare const SCHEDULED: readonly string[];

export interface BuiltFunction {
  readonly name: string;
  /** Of front.mjs; null: nobody asks it. */
  readonly front: string | null;
  /** Of index.mjs. */
  readonly index: string;
  readonly bytes: number;
  readonly gzipBytes: number;
  readonly metafile: Metafile;
}

export declare function bundleFunctions(names?: readonly string[]): Promise<readonly BuiltFunction[]>;
export declare function buildFunctions(): Promise<void>;
