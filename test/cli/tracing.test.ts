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
  [true, { OTEL_EXPORTER_OTLP_ENDPOINT: NOWHERE, OTEL_TRACES_EXPORTER: 'console, otlp' }],
  [false, { OTEL_EXPORTER_OTLP_ENDPOINT: NOWHERE, OTEL_TRACES_EXPORTER: 'none' }],
  [false, { OTEL_EXPORTER_OTLP_ENDPOINT: NOWHERE, OTEL_SDK_DISABLED: 'true' }],
])('%s: %j', async (isOn, env) => {
  const { telemetry, close } = await openTracing(env, () => undefined);
  expect(telemetry !== NO_TELEMETRY).toBe(isOn);
  await close();
});

test('a protocol that is not there is said, and its spans are sent all the same', async () => {
  for (const [protocol, said] of [['grpc', 1], ['http/json', 0], ['', 0]] as const) {
    const troubles: string[] = [];
    const { telemetry, close } = await openTracing({ OTEL_EXPORTER_OTLP_ENDPOINT: NOWHERE, OTEL_EXPORTER_OTLP_PROTOCOL: protocol }, (message) => void troubles.push(message));
    expect([telemetry !== NO_TELEMETRY, troubles.length], protocol).toEqual([true, said]);
    await close();
  }
});
