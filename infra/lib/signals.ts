/** By what the platform is watched and scaled: names are those of docs/QUEUE.md, Scaling. The reconciler counts every minute, whether a worker is there or not. */
import { aws_cloudwatch as cloudwatch, type aws_ecs as ecs, type aws_sqs as sqs, Duration } from 'aws-cdk-lib';

export const namespaceOf = (stage: string): string => `Ruminate/${stage}`;

const MINUTE = Duration.minutes(1);

export type Counted = 'BacklogSeconds' | 'WaitingSeconds' | 'QueueAgeSeconds' | 'JobsWaiting' | 'JobsRunning' | 'BacklogSecondsAtLeast' | 'JobsAtLeast';

/** Of the whole store, as the reconciler counted it last. */
export function counted(stage: string, metricName: Counted): cloudwatch.Metric {
  return new cloudwatch.Metric({ namespace: namespaceOf(stage), metricName, dimensionsMap: { Service: 'reconciler' }, statistic: 'Maximum', period: MINUTE });
}

export function ofWorkers(stage: string, metricName: 'WorkerOccupancy' | 'WorkerSlots', statistic: string): cloudwatch.Metric {
  return new cloudwatch.Metric({ namespace: namespaceOf(stage), metricName, dimensionsMap: { Service: 'worker' }, statistic, period: MINUTE });
}

/** Tasks that run: ECS tells each one's share of its CPUs once a minute. */
export function tasksOf(service: ecs.FargateService): cloudwatch.Metric {
  return new cloudwatch.Metric({ namespace: 'AWS/ECS', metricName: 'CPUUtilization', dimensionsMap: { ClusterName: service.cluster.clusterName, ServiceName: service.serviceName }, statistic: 'SampleCount', period: MINUTE });
}

/**
 * Seconds of work for each worker, but never more workers than jobs: one that is long takes its time on however many machines (docs/QUEUE.md, Scaling).
 * @param jobs an expression. @param workers ids of metrics, each the tasks of a service.
 */
export const perWorker = (backlog: string, jobs: string, workers: readonly string[], targetSeconds: number): string =>
  `MIN([${backlog}, ${targetSeconds} * (${jobs})]) / MAX([1, ${workers.map((id) => `FILL(${id}, 0)`).join(' + ')}])`;

/** 1: what a walk met that was not through is more than the workers can do in time. 0 also when walks are through again. */
export function tooMuch(stage: string, services: readonly ecs.FargateService[], targetSeconds: number): cloudwatch.MathExpression {
  const workers = Object.fromEntries(services.map((service, i) => [`n${i}`, tasksOf(service)]));
  return new cloudwatch.MathExpression({
    expression: `IF(${perWorker('FILL(met, 0)', 'FILL(jobs, 0)', Object.keys(workers), targetSeconds)} > ${targetSeconds}, 1, 0)`,
    usingMetrics: { met: counted(stage, 'BacklogSecondsAtLeast'), jobs: counted(stage, 'JobsAtLeast'), ...workers }, period: MINUTE, label: 'more than the workers can do in time',
  });
}

interface Queues {
  readonly interactive: sqs.IQueue;
  readonly batch: sqs.IQueue;
}

/**
 * 1: something waits and nobody has anything in hand. A worker has what it runs in hand, so that this is 0 while there is one that works. SQS tells of
 * a queue that nobody asked for six hours only after a quarter of an hour: the reconciler asks every minute.
 */
export function unattended(queues: Queues): cloudwatch.MathExpression {
  return new cloudwatch.MathExpression({ expression: 'IF(w1 + w2 > 0 AND h1 + h2 < 1, 1, 0)', usingMetrics: messages(queues), period: MINUTE, label: 'waits, and nobody is there' });
}

/** Messages that wait or are in hand: 0 says that there is nothing to do at all. */
export function unfinished(queues: Queues): cloudwatch.MathExpression {
  return new cloudwatch.MathExpression({ expression: 'w1 + w2 + h1 + h2', usingMetrics: messages(queues), period: MINUTE, label: 'messages' });
}

function messages({ interactive, batch }: Queues): Record<string, cloudwatch.IMetric> {
  const options = { statistic: 'Maximum', period: MINUTE };
  return {
    w1: interactive.metricApproximateNumberOfMessagesVisible(options),
    w2: batch.metricApproximateNumberOfMessagesVisible(options),
    h1: interactive.metricApproximateNumberOfMessagesNotVisible(options),
    h2: batch.metricApproximateNumberOfMessagesNotVisible(options),
  };
}
