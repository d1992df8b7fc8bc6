#!/usr/bin/env node
/** The health check of the image, which has no shell and no curl: exits with 0 if the process beside it answers. Argument: another path, such as /health/ready. */
const path = process.argv[2] ?? '/health/live';
const answer = await fetch(`http://127.0.0.1:8787${path}`, { signal: AbortSignal.timeout(4_000) }).catch(() => null);
process.exit(answer?.ok ? 0 : 1);
