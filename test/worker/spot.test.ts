/** What EC2 says before it takes a machine back, in both of its shapes, and a service that does not always answer. */
import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';

import { interruptionOf, untilInterrupted, whoami } from '../../engine/adapters/spot.ts';
import { ManualClock } from '../helpers/clock.ts';

let server: Server | null = null;
afterEach(() => server?.close());

async function metadata(answer: RequestListener): Promise<string> {
  server = createServer(answer);
  await new Promise<void>((resolve) => server?.listen(0, '127.0.0.1', resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

describe('a notice', () => {
  test('is read as the metadata service has it, and as EventBridge sends it', () => {
    expect(interruptionOf({ action: 'terminate', time: '2017-09-18T08:22:00Z' })).toEqual({ action: 'terminate', at: '2017-09-18T08:22:00Z', instance: null, task: null });
    const event = {
      version: '0', id: '12345678-1234-1234-1234-123456789012', 'detail-type': 'EC2 Spot Instance Interruption Warning', source: 'aws.ec2', account: '123456789012', time: '2026-11-25T12:00:00Z',
      region: 'us-east-2', resources: ['arn:aws:ec2:us-east-2a:instance/i-1234567890abcdef0'], detail: { 'instance-id': 'i-1234567890abcdef0', 'instance-action': 'stop' },
    };
    expect(interruptionOf(event)).toEqual({ action: 'stop', at: '2026-11-25T12:00:00Z', instance: 'i-1234567890abcdef0', task: null });
    const taskArn = 'arn:aws:ecs:us-east-2:123456789012:task/workers/b99d40b39de24bbb90c1234567890abc';
    const ofTask = { version: '0', 'detail-type': 'ECS Task State Change', source: 'aws.ecs', time: '2026-11-25T12:00:00Z', resources: [taskArn], detail: { clusterArn: 'arn:aws:ecs:us-east-2:123456789012:cluster/workers', lastStatus: 'RUNNING', desiredStatus: 'STOPPED', stopCode: 'SpotInterruption', stoppedReason: 'Your Spot Task was interrupted.', taskArn } };
    expect(interruptionOf(ofTask)).toEqual({ action: 'terminate', at: '2026-11-25T12:00:00Z', instance: null, task: taskArn });
  });

  test('is not read into anything else', () => {
    for (const value of [null, 1, 'terminate', {}, { action: 'reboot' }, { source: 'aws.ec2', 'detail-type': 'EC2 Instance State-change Notification', detail: { 'instance-id': 'i-1', state: 'running' } }, { source: 'aws.ec2', 'detail-type': 'EC2 Spot Instance Interruption Warning', detail: null }, { source: 'aws.ec2', 'detail-type': 'EC2 Instance Rebalance Recommendation', detail: { 'instance-id': 'i-1' } }, { source: 'aws.ecs', 'detail-type': 'ECS Task State Change', detail: { taskArn: 'arn:1', stopCode: 'UserInitiated' } }]) {
      expect(interruptionOf(value)).toBeNull();
    }
  });
});

describe('asking', () => {
  test('goes on through failures, says so once, and fetches a new token when its own is refused', async () => {
    const clock = new ManualClock();
    let [answers, tokens] = [0, 0];
    const endpoint = await metadata((request, response) => {
      if (request.method === 'PUT') return void response.end(`token-${++tokens}`);
      const plan = [404, 500, 503, 401, 404, 200][answers++] ?? 200;
      response.writeHead(plan).end(plan === 200 ? '{"action":"terminate","time":"2026-11-25T12:00:00Z"}' : '');
    });
    const troubles: unknown[] = [];
    const notice = untilInterrupted({ clock, signal: new AbortController().signal, endpoint, onTrouble: (error) => troubles.push(error) });
    let found: unknown = null;
    void notice.then((each) => { found = each; });
    while (found === null) {
      await clock.settle();
      // Above the pause, below the limit of a call: time never decides.
      if (answers > 0) clock.advance(1_000);
    }
    expect(found).toMatchObject({ action: 'terminate' });
    expect(answers).toBe(6);
    expect(troubles).toHaveLength(1);
    expect(tokens).toBe(4);
  });

  test('ends with its signal', async () => {
    const stop = new AbortController();
    const endpoint = await metadata((_, response) => void response.writeHead(404).end());
    const notice = untilInterrupted({ clock: new ManualClock(), signal: stop.signal, endpoint });
    stop.abort();
    expect(await notice).toBeNull();
  });
});

test('who it is, a worker hears from its variable, and from the metadata services of EC2 and ECS', async () => {
  const call = { clock: new ManualClock(), signal: new AbortController().signal };
  const endpoint = await metadata(({ method, url, headers }, response) => {
    if (method === 'PUT') return void response.end('token');
    if (url === '/latest/meta-data/instance-id' && headers['x-aws-ec2-metadata-token'] === 'token') return void response.end('i-1');
    return void response.writeHead(url === '/v4/task' ? 200 : 404).end('{"TaskARN":"arn:aws:ecs:us-east-2:1:task/workers/1"}');
  });
  const environment = { AWS_EC2_METADATA_SERVICE_ENDPOINT: endpoint, ECS_CONTAINER_METADATA_URI_V4: `${endpoint}/v4` };
  expect(await whoami({ ...call, environment })).toEqual({ instance: 'i-1', task: 'arn:aws:ecs:us-east-2:1:task/workers/1' });
  expect(await whoami({ ...call, environment: { ...environment, RUMINATE_INSTANCE: 'i-2' } })).toMatchObject({ instance: 'i-2' });
  server?.close();
  server?.closeAllConnections();
  expect(await whoami({ ...call, environment })).toEqual({ instance: null, task: null });
});
