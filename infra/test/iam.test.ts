/** Who may do what: every role with its actions and places, written down; what is wide, one by one. */
import { describe, expect, test } from 'vitest';

import { roleOf } from '../lib/iam.ts';
import { App, Stack } from 'aws-cdk-lib';
import { EVERY, type Found, stageNamed } from './synthesised.ts';
import { placeOf } from './text.ts';

interface Statement {
  readonly Sid?: string;
  readonly Effect: string;
  readonly Action: string | readonly string[];
  readonly NotAction?: unknown;
  readonly Resource: unknown;
  readonly Condition?: Record<string, Record<string, unknown>>;
}

const list = <T>(value: T | readonly T[]): readonly T[] => (Array.isArray(value) ? value : [value as T]);

/** Policies of a role: its own, and any that was put beside it. */
function statementsOf({ Properties }: Found): readonly Statement[] {
  return (Properties.Policies ?? []).flatMap(({ PolicyDocument }: any) => PolicyDocument.Statement as Statement[]);
}

function conditionText(condition: NonNullable<Statement['Condition']>, place: (value: unknown) => string): string {
  return Object.entries(condition).flatMap(([operator, of]) => Object.entries(of).map(([key, value]) => `${key} ${operator} ${list(value).map(place).join(' ')}`)).join(', ');
}

/** Resources that end in a star and why AWS takes nothing narrower. A new one has to be put here. */
const WIDE: Readonly<Record<string, string>> = {
  '*': 'ecr:GetAuthorizationToken, ecs:DiscoverPollEndpoint and cloudwatch:DescribeAlarms have no resource',
  'arn:aws:ecs:REGION:ACCOUNT:container-instance/CLUSTER/*': 'machines have no names before they are there',
  'arn:aws:ecs:REGION:ACCOUNT:task/CLUSTER/*': 'tasks have no names before they are there',
  'Models.Arn/models/*': 'objects',
  'Store.Arn/platform/*': 'objects',
  'Store.Arn/platform/kv/*': 'objects',
  'Store.Arn/platform/files/*': 'objects',
  'Store.Arn/platform/gc/*': 'objects',
  'Store.Arn/platform/kv/*/s/*': 'objects',
  'Store.Arn/platform/kv/*/t/*': 'objects',
  'Store.Arn/platform/kv/*/j/*': 'objects',
  'Store.Arn/platform/kv/*/m/*': 'objects',
  'Store.Arn/platform/probe/*': 'objects',
  'Store.Arn/platform/live/*': 'objects',
  'Store.Arn/platform/due/*': 'objects',
  'Store.Arn/platform/keep/*': 'objects',
  'Store.Arn/platform/expire/*': 'objects',
  'Store.Arn/platform/strikes/*': 'objects',
  'Store.Arn/platform/read/*': 'objects',
  'Store.Arn/platform/open/*': 'objects',
  'Store.Arn/platform/batches/*': 'objects',
  'Store.Arn/platform/deliveries/*': 'objects',
};
const EVERYWHERE = ['ecr:GetAuthorizationToken', 'ecs:DiscoverPollEndpoint', 'cloudwatch:DescribeAlarms'];

describe.each(EVERY)('stage %s', (name) => {
  const stage = stageNamed(name);
  const roles = stage.all('AWS::IAM::Role');
  const place = (resource: unknown) => placeOf(resource, name, stage.config.region);

  test('rights stand in the role that has them, and nowhere else', () => {
    expect(roles.length).toBeGreaterThan(3);
    expect([...stage.all('AWS::IAM::Policy'), ...stage.all('AWS::IAM::ManagedPolicy'), ...stage.all('AWS::IAM::User'), ...stage.all('AWS::IAM::Group')]).toEqual([]);
    const managed = roles.flatMap(({ id, Properties }) => (Properties.ManagedPolicyArns ?? []).map((arn: unknown) => `${id.replace(/[0-9A-F]{8}$/, '')}: ${place(arn)}`));
    expect(managed).toEqual(stage.config.workers.pool === null ? [] : ['InfrastructureRole: arn:aws:iam::aws:policy/AmazonECSInfrastructureRolePolicyForManagedInstances']);
  });

  test('every statement names its actions and allows; none has a star in an action', () => {
    for (const role of roles) {
      for (const { Effect, Action, NotAction, Sid } of statementsOf(role)) {
        expect(Effect).toBe('Allow');
        expect(NotAction).toBeUndefined();
        expect(Sid).toBeDefined();
        for (const action of list(Action)) expect(action).toMatch(/^[a-z0-9-]+:[A-Z][A-Za-z]+$/);
      }
    }
  });

  test('what is wide is written down, and everything goes only where AWS knows nothing narrower', () => {
    for (const role of roles) {
      for (const { Action, Resource } of statementsOf(role)) {
        for (const resource of list(Resource).map(place).filter((text) => text.includes('*'))) {
          expect(Object.keys(WIDE)).toContain(resource);
          if (resource === '*') for (const action of list(Action)) expect(EVERYWHERE).toContain(action);
        }
      }
    }
  });

  test('each role is taken by one service, and lists by prefix alone', () => {
    for (const role of roles) {
      const [trust, ...more] = role.Properties.AssumeRolePolicyDocument.Statement;
      expect(more).toEqual([]);
      expect(trust).toEqual({ Action: 'sts:AssumeRole', Effect: 'Allow', Principal: { Service: expect.stringMatching(/^[a-z0-9.-]+\.amazonaws\.com$/) } });
      for (const { Action, Condition } of statementsOf(role)) {
        if (list(Action).includes('s3:ListBucket')) expect(Object.keys(Condition?.StringLikeIfExists ?? {})).toEqual(['s3:prefix']);
        if (list(Action).some((action) => action.startsWith('kms:')) && !JSON.stringify(list(Action)).includes('Encrypt"')) expect(Condition).toBeDefined();
      }
    }
  });

  test('who deletes what jobs are made of: the API, which erases, and the collector', () => {
    const deleters = roles.filter((role) => statementsOf(role).some(({ Action, Resource }) => list(Action).includes('s3:DeleteObject') && list(Resource).map(place).some((at) => /platform\/(\*|kv\/\*)$/.test(at))));
    const names = deleters.map(({ id }) => id.replace(/(Task)?Role[0-9A-F]{8}$/, ''));
    for (const deleter of names) expect(['api', 'batches', 'chat', 'checkpoints', 'completions', 'jobs', 'responses', 'webhooks', 'collector', '']).toContain(deleter);
  });

  test('roles, actions and places are as they were reviewed', async () => {
    const lines = roles.flatMap((role) => [
      `${role.stack}/${role.id.replace(/[0-9A-F]{8}$/, '')}`,
      ...statementsOf(role).map(({ Sid, Action, Resource, Condition }) => `  ${Sid}: ${list(Action).join(' ')} on ${list(Resource).map(place).join(' ')}${Condition === undefined ? '' : ` if ${conditionText(Condition, place)}`}`),
    ]);
    await expect(`${lines.join('\n')}\n`).toMatchFileSnapshot(`snapshots/${name}.rights.txt`);
  });
});

test('a right that is wide and does not say why does not get as far as a template', () => {
  const role = (resources: string[], because?: string) => () => roleOf(new Stack(new App(), 'S'), 'Role', { service: 'lambda.amazonaws.com', description: '', rights: [{ sid: 'Wide', actions: ['s3:GetObject'], resources, ...(because === undefined ? {} : { because }) }] });
  expect(role(['*'])).toThrow(/Wide: \* has a \*, and nothing says why/);
  expect(role(['arn:aws:s3:::b/*'])).toThrow(/nothing says why/);
  expect(role(['arn:aws:s3:::b/*'], 'objects')).not.toThrow();
  expect(() => roleOf(new Stack(new App(), 'S'), 'Role', { service: 'lambda.amazonaws.com', description: '', rights: [{ sid: 'Wide', actions: ['s3:*'], resources: ['arn:aws:s3:::b'] }] })).toThrow(/an action has a \*/);
});
