/** What every stage must be, whatever else it is. */
import { describe, expect, test } from 'vitest';

import { GRACE_SECONDS } from '../config.ts';
import { EVERY, type Found, stageNamed } from './synthesised.ts';

const statements = (policy: any): any[] => [policy?.Statement ?? []].flat();
const values = (value: unknown): unknown[] => (typeof value === 'object' && value !== null ? Object.values(value).flatMap(values) : [value]);

describe.each(EVERY)('stage %s', (name) => {
  const stage = stageNamed(name);
  const { config } = stage;
  const buckets = stage.all('AWS::S3::Bucket');
  const bucket = (id: string): Found => buckets.find((found) => found.stack === 'Data' && found.id.startsWith(id)) as Found;

  describe('buckets', () => {
    test('are closed to the public, owned by the account, and outlive their stack', () => {
      expect(buckets.length).toBeGreaterThanOrEqual(3);
      for (const { Properties, DeletionPolicy, UpdateReplacePolicy } of buckets) {
        expect(Properties.PublicAccessBlockConfiguration).toEqual({ BlockPublicAcls: true, BlockPublicPolicy: true, IgnorePublicAcls: true, RestrictPublicBuckets: true });
        expect(Properties.OwnershipControls.Rules).toEqual([{ ObjectOwnership: 'BucketOwnerEnforced' }]);
        expect([DeletionPolicy, UpdateReplacePolicy]).toEqual(['Retain', 'Retain']);
      }
    });

    test('refuse what comes without TLS 1.2', () => {
      for (const { id, stack } of buckets) {
        const policy = stage.all('AWS::S3::BucketPolicy').find((found) => found.stack === stack && found.Properties.Bucket.Ref === id);
        const denied = statements(policy?.Properties.PolicyDocument).filter(({ Effect }) => Effect === 'Deny');
        expect(denied).toContainEqual(expect.objectContaining({ Action: 's3:*', Principal: { AWS: '*' }, Condition: { Bool: { 'aws:SecureTransport': 'false' } } }));
        expect(denied).toContainEqual(expect.objectContaining({ Action: 's3:*', Condition: { NumericLessThan: { 's3:TlsVersion': 1.2 } } }));
      }
    });

    test('of models and jobs are encrypted by the stage\'s key, and say who asked', () => {
      for (const found of [bucket('Models'), bucket('Store')]) {
        const [rule] = found.Properties.BucketEncryption.ServerSideEncryptionConfiguration;
        expect(rule.ServerSideEncryptionByDefault.SSEAlgorithm).toBe('aws:kms');
        expect(rule.ServerSideEncryptionByDefault.KMSMasterKeyID).toEqual({ 'Fn::GetAtt': [expect.stringMatching(/^DataKey/), 'Arn'] });
        expect(rule.BucketKeyEnabled).toBe(true);
        expect(found.Properties.LoggingConfiguration.DestinationBucketName.Ref).toMatch(/^AccessLogs/);
      }
    });

    test('nothing of the store expires by age: the first pages of a job that runs may be older than any', () => {
      const { Rules } = bucket('Store').Properties.LifecycleConfiguration;
      expect(Rules).toEqual([{ Id: 'parts', Status: 'Enabled', AbortIncompleteMultipartUpload: { DaysAfterInitiation: 1 } }]);
    });

    test('the store keeps no old versions, which would keep the keys of erased jobs; models are kept a month', () => {
      expect(bucket('Store').Properties.VersioningConfiguration).toBeUndefined();
      expect(bucket('Models').Properties.VersioningConfiguration).toEqual({ Status: 'Enabled' });
      expect(bucket('Models').Properties.LifecycleConfiguration.Rules).toContainEqual(expect.objectContaining({ NoncurrentVersionExpiration: { NoncurrentDays: 30 } }));
      expect(values(bucket('Models').Properties.LifecycleConfiguration)).not.toContain('ExpirationInDays');
    });

    test('each ends uploads in parts that nobody finished', () => {
      for (const { Properties } of buckets) expect(JSON.stringify(Properties.LifecycleConfiguration)).toContain('"AbortIncompleteMultipartUpload":{"DaysAfterInitiation":1}');
    });
  });

  describe('queues', () => {
    const queues = stage.all('AWS::SQS::Queue');
    const named = (suffix: string): Found => queues.find(({ Properties }) => Properties.QueueName === `ruminate-${name}-${suffix}`) as Found;

    test('are encrypted by the stage\'s key and refuse what comes without TLS', () => {
      expect(queues).toHaveLength(4);
      for (const { Properties, id } of queues) {
        expect(JSON.stringify(Properties.KmsMasterKeyId)).toContain('DataKey');
        const policy = stage.all('AWS::SQS::QueuePolicy').find((found) => found.Properties.Queues[0].Ref === id);
        expect(statements(policy?.Properties.PolicyDocument)).toContainEqual(expect.objectContaining({ Effect: 'Deny', Condition: { Bool: { 'aws:SecureTransport': 'false' } } }));
        expect(Properties.MessageRetentionPeriod).toBe(14 * 86_400);
      }
    });

    test.each(['interactive', 'batch'])('%s: a message is dead after 100 receipts, in a queue that takes no other\'s', (queue) => {
      const [own, dead] = [named(queue), named(`${queue}-dead`)];
      expect(own.Properties.RedrivePolicy).toEqual({ deadLetterTargetArn: { 'Fn::GetAtt': [dead.id, 'Arn'] }, maxReceiveCount: 100 });
      expect(dead.Properties.RedriveAllowPolicy.redrivePermission).toBe('byQueue');
      expect(JSON.stringify(dead.Properties.RedriveAllowPolicy.sourceQueueArns)).toContain(`:ruminate-${name}-${queue}"`);
    });

    test('a message is hidden for 2 minutes, or for longer than the function that has it may run', () => {
      for (const queue of ['interactive', 'batch']) expect(named(queue).Properties.VisibilityTimeout).toBe(config.workers.lambda === null ? 120 : 960);
    });
  });

  test('keys are turned over each year, kept when their stack goes, and used by no principal of another account', () => {
    const keys = stage.all('AWS::KMS::Key');
    expect(keys).toHaveLength(config.seal ? 2 : 1);
    for (const { Properties, DeletionPolicy } of keys) {
      expect(Properties.EnableKeyRotation).toBe(true);
      expect(DeletionPolicy).toBe('Retain');
      for (const { Principal, Condition, Effect } of statements(Properties.KeyPolicy)) {
        expect(Effect).toBe('Allow');
        if (Principal.Service === undefined) expect(JSON.stringify(Principal.AWS)).toContain(':iam::');
        else expect(JSON.stringify(Condition)).toContain('AWS::AccountId');
      }
    }
  });

  test('logs are encrypted and end', () => {
    for (const { Properties } of stage.all('AWS::Logs::LogGroup')) {
      expect(JSON.stringify(Properties.KmsKeyId)).toContain('DataKey');
      expect(Properties.RetentionInDays).toBe(config.logDays);
    }
  });

  test('the secret has hashes only, encrypted, and at first none', () => {
    const [secret] = stage.all('AWS::SecretsManager::Secret');
    expect(secret?.Properties).toMatchObject({ SecretString: '[]', KmsKeyId: { 'Fn::GetAtt': [expect.stringMatching(/^DataKey/), 'Arn'] } });
    expect(secret?.DeletionPolicy).toBe('Retain');
  });

  test('images cannot be changed behind their digest, and are scanned', () => {
    const [images] = stage.all('AWS::ECR::Repository');
    expect(images?.Properties).toMatchObject({ ImageTagMutability: 'IMMUTABLE', ImageScanningConfiguration: { ScanOnPush: true }, EncryptionConfiguration: { EncryptionType: 'KMS' } });
  });

  describe('network', () => {
    test('there is no NAT, and an isolated subnet has no way out', () => {
      expect(stage.all('AWS::EC2::NatGateway')).toEqual([]);
      if (config.network.access === 'private' && config.control.host === 'lambda') {
        expect(stage.all('AWS::EC2::InternetGateway')).toEqual([]);
        expect(stage.all('AWS::EC2::Route')).toEqual([]);
      }
    });

    test('nobody is let in but clients at the balancer, workers at the endpoints and the balancer at the API', () => {
      const open = stage.all('AWS::EC2::SecurityGroup').filter(({ Properties }) => (Properties.SecurityGroupIngress ?? []).some(({ CidrIp }: any) => CidrIp !== undefined));
      expect(open.map(({ id }) => id.replace(/[0-9A-F]{8}$/, ''))).toEqual(config.control.host === 'fargate' ? ['Door'] : []);
      for (const { Properties } of open) expect(Properties.SecurityGroupIngress).toEqual([expect.objectContaining({ FromPort: 443, ToPort: 443 })]);
      const workers = stage.all('AWS::EC2::SecurityGroup').find(({ id }) => id.startsWith('Workers'));
      if (config.workers.pool !== null) expect(workers?.Properties.SecurityGroupEgress).toEqual([expect.objectContaining({ FromPort: 443, ToPort: 443, IpProtocol: 'tcp' })]);
    });

    test('no rule of any kind lets anything in to a worker, whose machine may have a public address', () => {
      const groups = stage.all('AWS::EC2::SecurityGroup').filter(({ id }) => id.startsWith('Workers'));
      expect(groups).toHaveLength(stage.all('AWS::EC2::VPC').length);
      for (const { Properties } of groups) expect(Properties.SecurityGroupIngress).toBeUndefined();
      expect(stage.all('AWS::EC2::SecurityGroupIngress').filter(({ Properties }) => Properties.GroupId['Fn::GetAtt']?.[0].startsWith('Workers'))).toEqual([]);
      // Whatever starts workers gives them this group, and no other.
      for (const { Properties } of stage.all('AWS::ECS::CapacityProvider')) {
        const { SecurityGroups, Subnets } = Properties.ManagedInstancesProvider.InstanceLaunchTemplate.NetworkConfiguration;
        expect(SecurityGroups).toEqual([{ 'Fn::ImportValue': expect.stringMatching(/ExportsOutputFnGetAttWorkers\w+GroupId/) }]);
        expect(Subnets).toHaveLength(config.network.zones);
      }
    });

    test('a worker goes out by TLS alone, and nobody outside its machine can ask for its metrics', () => {
      for (const { Properties } of stage.all('AWS::ECS::TaskDefinition')) {
        for (const { Name: is, Environment } of Properties.ContainerDefinitions) {
          for (const { Value } of Environment) expect(JSON.stringify(Value)).not.toContain('http:');
          if (is === 'worker') expect(Environment).toContainEqual({ Name: 'RUMINATE_METRICS_HOST', Value: '127.0.0.1' });
        }
      }
    });

    test('S3 is reached by a gateway endpoint, which costs nothing, by whoever has a network', () => {
      expect(stage.all('AWS::EC2::VPCEndpoint').filter(({ Properties }) => Properties.VpcEndpointType === 'Gateway')).toHaveLength(stage.all('AWS::EC2::VPC').length);
    });

    test('endpoints serve this account\'s principals and this platform\'s buckets', () => {
      for (const { Properties } of stage.all('AWS::EC2::VPCEndpoint')) {
        const isGateway = Properties.VpcEndpointType === 'Gateway';
        for (const { Condition, Resource, Action } of statements(Properties.PolicyDocument)) {
          if (!isGateway) expect(Condition).toEqual({ StringEquals: { 'aws:PrincipalAccount': { Ref: 'AWS::AccountId' } } });
          else expect([Resource, Action].flat()).not.toContain('*');
        }
        if (!isGateway) expect(Properties.PrivateDnsEnabled).toBe(true);
      }
    });
  });

  describe('functions', () => {
    const functions = stage.all('AWS::Lambda::Function');

    test('are ours alone: CDK has added none', () => {
      expect(functions.every(({ Properties }) => String(Properties.Description).startsWith('Ruminate: '))).toBe(true);
    });

    test('run Node 22 or an image by its digest, and their variables are encrypted by the stage\'s key', () => {
      for (const { Properties } of functions) {
        if (Properties.PackageType === 'Image') expect(JSON.stringify(Properties.Code.ImageUri)).toMatch(/"@",\{"Ref":"ImageDigest"\}/);
        else expect([Properties.Runtime, Properties.Handler, Properties.Architectures]).toEqual(['nodejs22.x', 'index.handler', ['arm64']]);
        expect(JSON.stringify(Properties.KmsKeyArn)).toContain('DataKey');
      }
    });

    test('no secret stands in a variable: keys come by their hashes, at the version that the deploy names', () => {
      for (const { Properties } of functions) {
        const { RUMINATE_API_KEYS: keys } = Properties.Environment.Variables;
        if (keys !== undefined) expect(JSON.stringify(keys)).toMatch(/\{\{resolve:secretsmanager:.*:SecretString:::.*ApiKeysVersion/);
      }
    });

    test('a URL streams, and everyone may ask it, because the function itself asks for a key', () => {
      for (const { Properties } of stage.all('AWS::Lambda::Url')) expect([Properties.AuthType, Properties.InvokeMode, Properties.Qualifier]).toEqual(['NONE', 'RESPONSE_STREAM', 'live']);
      for (const { Properties } of stage.all('AWS::Lambda::Permission')) {
        const isByUrl = Properties.FunctionUrlAuthType === 'NONE' || Properties.InvokedViaFunctionUrl === true;
        expect(Properties.Principal === '*').toBe(isByUrl);
      }
    });

    test('a worker on Lambda gets one message at a time and says which come back', () => {
      for (const { Properties } of stage.all('AWS::Lambda::EventSourceMapping')) expect(Properties).toMatchObject({ BatchSize: 1, FunctionResponseTypes: ['ReportBatchItemFailures'] });
    });
  });

  describe('tasks', () => {
    const tasks = stage.all('AWS::ECS::TaskDefinition');
    const containers = tasks.flatMap(({ Properties }) => Properties.ContainerDefinitions);

    test('have a read-only root, a user who is nobody, no privilege, and an image by its digest', () => {
      if (config.workers.pool !== null) expect(tasks.length).toBeGreaterThan(0);
      for (const container of containers) {
        expect(container).toMatchObject({ ReadonlyRootFilesystem: true, User: '65532:65532' });
        expect(container.Privileged ?? false).toBe(false);
        expect(JSON.stringify(container.Image)).toMatch(/"@",\{"Ref":"(Image|Canary)Digest"\}/);
        expect(container.LogConfiguration.LogDriver).toBe('awslogs');
      }
    });

    test('a worker is killed after its grace, not before', () => {
      for (const { Name, StopTimeout, Environment } of containers.filter(({ Name: is }: any) => is === 'worker')) {
        expect(Name).toBe('worker');
        expect(Environment).toContainEqual({ Name: 'RUMINATE_GRACE', Value: `${GRACE_SECONDS}s` });
        expect(StopTimeout).toBeGreaterThan(GRACE_SECONDS + 10);
      }
    });

    test('nobody gets a shell in one', () => {
      for (const { Properties } of stage.all('AWS::ECS::Service')) expect(Properties.EnableExecuteCommand).toBe(false);
    });
  });
});
