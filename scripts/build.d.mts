import type { BuildOptions } from 'esbuild';

/** What TypeScript callers use of build.mjs. */
export declare const BUNDLE: BuildOptions;
