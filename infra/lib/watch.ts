/** When somebody is told that something is wrong, or expensive, and where it can be looked at. */
import { aws_budgets as budgets, aws_cloudwatch as cloudwatch, type aws_lambda as lambda, Duration, Stack, type StackProps } from 'aws-cdk-lib';
import type { Construct } from 'constructs';

import type { StageConfig } from '../config.ts';
import type { QueuesStack } from './queues.ts';
import { counted, ofWorkers, tasksOf } from './signals.ts';
import type { WorkersStack } from './workers.ts';

export interface WatchOptions extends StackProps {
  readonly stage: string;
  readonly config: StageConfig;
  readonly queues: QueuesStack;
  readonly workers: WorkersStack;
  readonly fronts: readonly lambda.IFunction[];
}

const BUDGET_PERCENTS = [50, 80, 100] as const;

export class WatchStack extends Stack {
  constructor(scope: Construct, id: string, options: WatchOptions) {
    super(scope, id, options);
    const { stage, config, queues, workers, fronts } = options;
    const { told } = queues.alarms;
    const alarm = (name: string, alarmDescription: string, metric: cloudwatch.IMetric, threshold: number, minutes: number) => {
      new cloudwatch.Alarm(this, name, { alarmDescription, metric, threshold, evaluationPeriods: minutes, comparisonOperator: cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD, treatMissingData: cloudwatch.TreatMissingData.NOT_BREACHING }).addAlarmAction(told);
    };
    queues.dead.forEach((dead, i) => alarm(`Dead${i}`, 'A message is dead: a worker or a store is wrong (docs/QUEUE.md)', dead.metricApproximateNumberOfMessagesVisible({ period: Duration.minutes(1), statistic: 'Maximum' }), 1, 1));
    alarm('Late', `Something has waited for ${config.waitSecondsMax} s without a worker`, counted(stage, 'QueueAgeSeconds'), config.waitSecondsMax, 3);
    if (workers.lambda !== null) alarm('LambdaWorker', 'The worker on Lambda fails', workers.lambda.errors, 3, 2);
    fronts.forEach((front, i) => alarm(`Throttled${i}`, 'Requests are turned away: more at a time than the stage or the account allows', front.metricThrottles({ period: Duration.minutes(1) }), 1, 3));
    // Nothing is counted: the reconciler itself is what is wrong.
    new cloudwatch.Alarm(this, 'Blind', {
      alarmDescription: 'The reconciler has counted nothing for a quarter of an hour', metric: counted(stage, 'JobsWaiting').with({ statistic: 'SampleCount', period: Duration.minutes(5) }),
      threshold: 1, evaluationPeriods: 3, comparisonOperator: cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD, treatMissingData: cloudwatch.TreatMissingData.BREACHING,
    }).addAlarmAction(told);
    this.#dashboard(options);
    new budgets.CfnBudget(this, 'Budget', {
      budget: {
        budgetName: `ruminate-${stage}`, budgetType: 'COST', timeUnit: 'MONTHLY', budgetLimit: { amount: config.budgetUsdPerMonth, unit: 'USD' },
        // Every resource of the stage carries this tag; it has to be made a cost allocation tag once, by hand (README).
        costFilters: { TagKeyValue: [`user:ruminate:stage$${stage}`] },
      },
      notificationsWithSubscribers: BUDGET_PERCENTS.map((threshold) => ({
        notification: { comparisonOperator: 'GREATER_THAN', notificationType: threshold === 100 ? 'FORECASTED' : 'ACTUAL', threshold, thresholdType: 'PERCENTAGE' },
        subscribers: [{ subscriptionType: 'SNS', address: queues.alarms.topicArn }],
      })),
    });
  }

  #dashboard({ stage, queues, workers, fronts }: WatchOptions): void {
    const graph = (title: string, left: cloudwatch.IMetric[], right: cloudwatch.IMetric[] = []) => new cloudwatch.GraphWidget({ title, left, right, width: 12, height: 6, liveData: true });
    const dashboard = new cloudwatch.Dashboard(this, 'Dashboard', { dashboardName: `ruminate-${stage}`, defaultInterval: Duration.hours(6) });
    dashboard.addWidgets(
      graph('Work, in seconds of one worker', [counted(stage, 'BacklogSeconds'), counted(stage, 'WaitingSeconds')], [counted(stage, 'QueueAgeSeconds')]),
      graph('Jobs', [counted(stage, 'JobsRunning'), counted(stage, 'JobsWaiting')]),
      graph('Workers', [...workers.pools.map(({ service }) => tasksOf(service)), ofWorkers(stage, 'WorkerSlots', 'Sum')], [ofWorkers(stage, 'WorkerOccupancy', 'Average')]),
      graph('Messages', [queues.interactive, queues.batch].flatMap((queue) => [queue.metricApproximateNumberOfMessagesVisible(), queue.metricApproximateNumberOfMessagesNotVisible()]), queues.dead.map((dead) => dead.metricApproximateNumberOfMessagesVisible())),
      graph('Requests', fronts.map((front) => front.metricInvocations()), fronts.flatMap((front) => [front.metricErrors(), front.metricThrottles()])),
      graph('Seconds of a request', fronts.map((front) => front.metricDuration({ statistic: 'p95' }))),
    );
  }
}
