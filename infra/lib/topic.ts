/** Where alarms and the budget say what is wrong, for people to hear. It is made before whatever has alarms, so that each has it as its own action. */
import { aws_cloudwatch_actions as actions, aws_iam as iam, type aws_kms as kms, aws_sns as sns, aws_sns_subscriptions as subscriptions, Aws } from 'aws-cdk-lib';
import type { Construct } from 'constructs';

export class AlarmTopic extends sns.Topic {
  /** What an alarm does. */
  readonly told: actions.SnsAction;

  constructor(scope: Construct, id: string, { stage, emails, dataKey }: { readonly stage: string; readonly emails: readonly string[]; readonly dataKey: kms.IKey }) {
    super(scope, id, { displayName: `Ruminate ${stage}`, masterKey: dataKey, enforceSSL: true });
    this.told = new actions.SnsAction(this);
    for (const email of emails) this.addSubscription(new subscriptions.EmailSubscription(email));
    this.addToResourcePolicy(new iam.PolicyStatement({
      sid: 'Services', actions: ['sns:Publish'], resources: [this.topicArn], conditions: { StringEquals: { 'aws:SourceAccount': Aws.ACCOUNT_ID } },
      principals: [new iam.ServicePrincipal('cloudwatch.amazonaws.com'), new iam.ServicePrincipal('budgets.amazonaws.com')],
    }));
  }
}
