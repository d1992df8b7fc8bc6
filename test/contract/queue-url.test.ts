/** From what a person writes to a queue; what cannot be one is refused before anything is asked. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { openQueue, openQueueOf } from '../../engine/adapters/queue-url.ts';

let root: string;
beforeAll(() => {
  root = mkdtempSync(path.join(tmpdir(), 'ruminate-queue-url-'));
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

const SQS = 'https://sqs.eu-central-1.amazonaws.com/123456789012/jobs';

describe('a queue is opened', () => {
  test('in a directory, by path or file:, and is new the first time', async () => {
    const directory = path.join(root, 'with space');
    expect(await openQueue(directory)).toMatchObject({ isNew: true, queue: { url: `file:${directory}` } });
    expect(await openQueue(pathToFileURL(directory).href)).toMatchObject({ isNew: false, queue: { url: `file:${directory}` } });
  });

  test('in the store, if that is a directory, where no object can be', async () => {
    const opened = await openQueueOf(`file:${root}/store`);
    expect(opened?.queue.url).toBe(`file:${root}/store/#queue`);
    expect(await openQueueOf('s3://bucket/prefix')).toBeNull();
  });

  test('on SQS, with sqs: before it or without', async () => {
    for (const url of [SQS, `sqs:${SQS}`, 'http://127.0.0.1:9324/000000000000/jobs', 'http://127.0.0.1:4566/queue/us-east-1/000000000000/jobs']) {
      expect(await openQueue(url, { environment: {} })).toMatchObject({ isNew: false, queue: { url: url.replace('sqs:', '') } });
    }
  });

  test('in memory, new each time', async () => {
    expect(await openQueue('local:')).toMatchObject({ isNew: true, queue: { url: 'local:' } });
  });
});

describe('a queue is refused', () => {
  test.each([
    ['', 'empty'], ['  ', 'empty'], ['a\0b', 'NUL'], ['amqp://host/q', 'unknown scheme'], ['local:name', 'has a name'], ['file:relative', 'absolute path'], ['file:/a?b', 'query'],
    ['https://sqs.eu-central-1.amazonaws.com/', 'account'], [`${SQS}.fifo`, '.fifo'], [`${SQS}?x=1`, 'query'], ['https://key:secret@host/1/jobs', 'credentials'], ['sqs:jobs', 'no address'], ['sqs:ftp://host/1/jobs', 'no http'],
  ])('%j: %s', async (url, why) => {
    await expect(openQueue(url)).rejects.toMatchObject({ code: 'ERR_QUEUE_CONFIG', message: expect.stringContaining(why) as unknown });
  });

  test('without what someone may have written into it', async () => {
    await expect(openQueue('https://key:secret@host/1/jobs')).rejects.not.toThrow(/secret/);
  });

  test('with a queue for batches that is the same, or of another kind', async () => {
    await expect(openQueue(SQS, { batchUrl: SQS })).rejects.toThrow(/both the queue and/);
    await expect(openQueue(path.join(root, 'q'), { batchUrl: SQS })).rejects.toThrow(/apart by itself/);
    await expect(openQueue(SQS, { environment: { RUMINATE_SQS_ENDPOINT: 'nowhere' } })).rejects.toThrow(/no http\(s\) URL/);
  });

  test('if it is only looked at and is not there', async () => {
    await expect(openQueue(path.join(root, 'nowhere'), { mustExist: true })).rejects.toMatchObject({ code: 'ERR_QUEUE_CONFIG' });
  });
});
