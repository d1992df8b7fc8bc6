/**
 * How many workers there are. From zero at the first message that nobody has in hand; then by seconds of work for each worker; to zero when nothing is
 * left. A count that was not through only ever adds workers. On-demand machines come for what has waited too long, which is what a lack of Spot looks like from here.
 */
import { aws_applicationautoscaling as scaling, aws_cloudwatch as cloudwatch, type aws_ecs as ecs, type aws_sqs as sqs, Stack } from 'aws-cdk-lib';
import { Construct } from 'constructs';

import type { PoolConfig } from '../config.ts';
import { counted, perWorker, tasksOf, tooMuch, unattended, unfinished } from './signals.ts';

export interface ScalingOptions {
  readonly stage: string;
  readonly pool: PoolConfig;
  readonly queues: { readonly interactive: sqs.IQueue; readonly batch: sqs.IQueue };
  readonly service: ecs.FargateService;
  /** Of every service whose workers share the queues. */
  readonly services: readonly ecs.FargateService[];
  /** `first`: has the work. `fallback`: comes for what waits in spite of that. */
  readonly role: 'first' | 'fallback';
}

/** A machine, its image and its model take minutes: until then another step would be for the same work. */
const START_SECONDS = 300;

export class WorkerScaling extends Construct {
  readonly alarms: cloudwatch.Alarm[] = [];
  readonly #target: scaling.CfnScalableTarget;

  constructor(scope: Construct, id: string, { stage, pool, queues, service, services, role }: ScalingOptions) {
    super(scope, id);
    this.#target = new scaling.CfnScalableTarget(this, 'Target', {
      serviceNamespace: 'ecs',
      scalableDimension: 'ecs:service:DesiredCount',
      resourceId: `service/${service.cluster.clusterName}/${service.serviceName}`,
      minCapacity: 0,
      maxCapacity: pool.tasksMax,
      roleArn: Stack.of(this).formatArn({ service: 'iam', region: '', resource: 'role/aws-service-role/ecs.application-autoscaling.amazonaws.com', resourceName: 'AWSServiceRoleForApplicationAutoScaling_ECSService' }),
    });
    if (role === 'first') {
      this.#step('FromZero', unattended(queues), { threshold: 1, minutes: 1, change: 1, cooldownSeconds: START_SECONDS, description: 'A message waits and no worker has one in hand' });
      this.#track(stage, pool, services);
      // What is tracked is missing then.
      this.#step('AtLeast', tooMuch(stage, services, pool.backlogSeconds), { threshold: 1, minutes: 1, change: 1, cooldownSeconds: START_SECONDS, isOverWhenMissing: true, description: 'A count that was not through met more than the workers can do in time' });
    } else {
      const age = counted(stage, 'QueueAgeSeconds');
      this.#step('TooLate', age, { threshold: pool.fallbackSeconds, minutes: 1, change: 1, cooldownSeconds: START_SECONDS, description: 'What waits has waited too long for Spot' });
      this.#step('InTime', age, { threshold: pool.fallbackSeconds / 4, minutes: 15, change: -1, cooldownSeconds: START_SECONDS, isBelow: true, description: 'Spot keeps up again' });
    }
    this.#step('ToZero', unfinished(queues), { threshold: 1, minutes: Math.ceil(pool.idleSeconds / 60), to: 0, cooldownSeconds: 60, isBelow: true, description: 'No message waits, and none is in hand' });
  }

  #track(stage: string, { backlogSeconds }: PoolConfig, services: readonly ecs.FargateService[]): void {
    const workers = services.map((service, i) => ({ id: `n${i}`, metric: tasksOf(service) }));
    const stat = ({ namespace, metricName, dimensions, statistic }: cloudwatch.Metric) => ({
      metric: { namespace, metricName, dimensions: Object.entries(dimensions ?? {}).map(([name, value]) => ({ name, value: String(value) })) }, stat: statistic,
    });
    this.#policy('Backlog', 'TargetTrackingScaling', {
      targetTrackingScalingPolicyConfiguration: {
        targetValue: backlogSeconds,
        scaleOutCooldown: START_SECONDS,
        scaleInCooldown: START_SECONDS,
        // The L2 takes no expression.
        customizedMetricSpecification: {
          metrics: [
            { id: 'backlog', metricStat: stat(counted(stage, 'BacklogSeconds')), returnData: false },
            { id: 'waiting', metricStat: stat(counted(stage, 'JobsWaiting')), returnData: false },
            { id: 'running', metricStat: stat(counted(stage, 'JobsRunning')), returnData: false },
            ...workers.map(({ id, metric }) => ({ id, metricStat: stat(metric), returnData: false })),
            { id: 'each', label: 'Seconds of work for each worker', returnData: true, expression: perWorker('backlog', 'waiting + running', workers.map(({ id }) => id), backlogSeconds) },
          ],
        },
      },
    });
  }

  #step(id: string, metric: cloudwatch.IMetric, { threshold, minutes, change, to, cooldownSeconds, isBelow = false, isOverWhenMissing = false, description }: Step): void {
    const policy = this.#policy(id, 'StepScaling', {
      stepScalingPolicyConfiguration: {
        adjustmentType: to === undefined ? 'ChangeInCapacity' : 'ExactCapacity',
        cooldown: cooldownSeconds,
        metricAggregationType: 'Maximum',
        stepAdjustments: [{ scalingAdjustment: to ?? change ?? 0, ...(isBelow ? { metricIntervalUpperBound: 0 } : { metricIntervalLowerBound: 0 }) }],
      },
    });
    const alarm = new cloudwatch.Alarm(this, `${id}Alarm`, {
      alarmDescription: description,
      metric,
      threshold,
      evaluationPeriods: minutes,
      comparisonOperator: isBelow ? cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD : cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
      // Not known is no reason to start a machine or to stop one.
      treatMissingData: isOverWhenMissing ? cloudwatch.TreatMissingData.NOT_BREACHING : cloudwatch.TreatMissingData.IGNORE,
    });
    alarm.addAlarmAction({ bind: () => ({ alarmActionArn: policy.ref }) });
    this.alarms.push(alarm);
  }

  #policy(id: string, policyType: string, configuration: Pick<scaling.CfnScalingPolicyProps, 'stepScalingPolicyConfiguration' | 'targetTrackingScalingPolicyConfiguration'>): scaling.CfnScalingPolicy {
    return new scaling.CfnScalingPolicy(this, id, { policyName: `${this.node.path.replaceAll('/', '-')}-${id}`.slice(-200), policyType, scalingTargetId: this.#target.ref, ...configuration });
  }
}

interface Step {
  readonly threshold: number;
  readonly minutes: number;
  readonly change?: number;
  /** Exactly so many. */
  readonly to?: number;
  readonly cooldownSeconds: number;
  readonly isBelow?: boolean;
  /** An alarm that stays on starts a machine again and again. */
  readonly isOverWhenMissing?: boolean;
  readonly description: string;
}
