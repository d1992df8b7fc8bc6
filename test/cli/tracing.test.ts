/** Which of OpenTelemetry's variables ask for spans. */
import { expect, test } from 'vitest';

import { openTracing } from '../../cli/tracing.ts';
import { NO_TELEMETRY } from '../../engine/ports/telemetry.ts';

const NOWHERE = 'http://127.0.0.1:9';

test.each<[boolean, NodeJS.ProcessEnv]>([
  [false, {}],
  [false, { OTEL_EXPORTER_OTLP_ENDPOINT: '', OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: '' }],
  [true, { OTEL_EXPORTER_OTLP_ENDPOINT: NOWHERE }],
  [true, { OTEL_EXPORTER_OTLP_ENDPOINT: '', OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: NOWHERE, OTEL_TRACES_EXPORTER: '' }],
  [false, { OTEL_EXPORTER_OTLP_ENDPOINT: NOWHERE, OTEL_TRACES_EXPORTER: 'none' }],
  [false, { OTEL_EXPORTER_OTLP_ENDPOINT: NOWHERE, OTEL_SDK_DISABLED: 'true' }],
])('%s: %j', async (isOn, env) => {
  const { telemetry, close } = await openTracing(env, () => undefined);
  expect(telemetry !== NO_TELEMETRY).toBe(isOn);
  await close();
});
