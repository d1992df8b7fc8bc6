/**
 * What AWS asks, for estimates: list prices of us-east-1 without taxes and free tiers, in USD, as known on `AS_OF`; the one table for all that says
 * what something costs. Machines are examples of what workers run on: who knows what his cost says so (`--usd-per-hour`). Spot prices
 * move; what stands here is about what they have been.
 */
export const AS_OF = '2026-11-30';

export const PRICES = {
  s3: { gibMonth: 0.023, put: 0.005 / 1_000, get: 0.000_4 / 1_000 },
  sqs: { request: 0.4 / 1e6 },
  lambda: { request: 0.2 / 1e6, gibSecond: 0.000_016_666_7 },
  cloudwatch: { metricMonth: 0.3, logGib: 0.5, alarmMonth: 0.1, compositeAlarmMonth: 0.5, dashboardMonth: 3 },
  kms: { keyMonth: 1, request: 0.03 / 10_000 },
  secrets: { secretMonth: 0.4 },
  ecr: { gibMonth: 0.1 },
  /** An endpoint of PrivateLink in one zone; a public IPv4 address that something has. */
  vpc: { endpointHour: 0.01, addressHour: 0.005 },
  loadBalancer: { hour: 0.022_5 },
  fargate: { cpuHour: 0.040_48, gibHour: 0.004_445 },
  /** An hour. `cpu`: c7i.xlarge, 4 vCPU; `gpu`: g6.xlarge, one L4; `gpu48`: g6e.xlarge, one L40S. */
  machines: { cpu: { onDemand: 0.178_5, spot: 0.071 }, gpu: { onDemand: 0.804_8, spot: 0.322 }, gpu48: { onDemand: 1.861, spot: 0.744 } },
} as const;
