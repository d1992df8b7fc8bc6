/** OpenTelemetry's SDK, where its standard variables ask for it; else none of it is loaded. https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/ */
import { NO_TELEMETRY, type Telemetry } from '../engine/ports/telemetry.ts';

export interface Tracing {
  readonly telemetry: Telemetry;
  /** Sends what is left, for at most a few seconds. */
  close(): Promise<void>;
}

const OFF: Tracing = { telemetry: NO_TELEMETRY, close: async () => undefined };
const CLOSE_MS_MAX = 3_000;
/** The one whose exporter is here; every collector that takes OTLP over HTTP takes it. */
const PROTOCOL = 'http/json';

/** @param onTrouble spans could not be sent; nothing else is the worse for it. */
export async function openTracing(env: NodeJS.ProcessEnv, onTrouble: (message: string) => void): Promise<Tracing> {
  // A variable that is empty is as one that is not set.
  const asked = env.OTEL_EXPORTER_OTLP_ENDPOINT || env.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT || '';
  const exporters = (env.OTEL_TRACES_EXPORTER || 'otlp').split(',').map((name) => name.trim());
  if (asked === '' || env.OTEL_SDK_DISABLED?.toLowerCase() === 'true' || !exporters.includes('otlp')) return OFF;
  const protocol = env.OTEL_EXPORTER_OTLP_TRACES_PROTOCOL || env.OTEL_EXPORTER_OTLP_PROTOCOL || PROTOCOL;
  if (protocol !== PROTOCOL) onTrouble(`the OTLP protocol asked for is not there: spans are sent as ${PROTOCOL}`);
  const [{ DiagLogLevel, diag }, { OTLPTraceExporter }, { defaultResource, detectResources, envDetector, resourceFromAttributes }, { BatchSpanProcessor, NodeTracerProvider }, { createOtel }] = await Promise.all([
    import('@opentelemetry/api'),
    import('@opentelemetry/exporter-trace-otlp-http'),
    import('@opentelemetry/resources'),
    import('@opentelemetry/sdk-trace-node'),
    import('../engine/adapters/otel.ts'),
  ]);
  // What it says may hold whatever a collector answered: of one line only the beginning, and no arguments.
  const say = (message: string) => onTrouble(message.slice(0, 200));
  const silent = () => undefined;
  diag.setLogger({ error: say, warn: say, info: silent, debug: silent, verbose: silent }, { logLevel: DiagLogLevel.WARN, suppressOverrideMessage: true });
  // OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES go before ours; endpoint, headers, sampler and batching are read by the SDK itself.
  const resource = defaultResource().merge(resourceFromAttributes({ 'service.name': 'ruminate' })).merge(detectResources({ detectors: [envDetector] }));
  const provider = new NodeTracerProvider({ resource, spanProcessors: [new BatchSpanProcessor(new OTLPTraceExporter())] });
  return {
    telemetry: createOtel(provider.getTracer('ruminate')),
    async close() {
      const late = new Promise<void>((resolve) => setTimeout(resolve, CLOSE_MS_MAX).unref());
      await Promise.race([provider.shutdown().catch(silent), late]);
    },
  };
}
