/** The KMS adapter before a server that speaks KMS's protocol and is not KMS (helpers/kms-fake.ts). */
import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';

import { openKeyProvider } from '../../engine/adapters/key-url.ts';
import { KmsKeys, type KmsOptions } from '../../engine/adapters/kms.ts';
import { HastyClock, ManualClock } from '../helpers/clock.ts';
import { startFakeKms, type FakeKms, type KmsAnswer } from '../helpers/kms-fake.ts';
import { CONTEXT, describeKeyProvider, expectNothingOf, shownBy } from './key-provider.ts';

const KEY = 'alias/ruminate';
const OTHER = 'alias/other';
const PAUSE_MS_MAX = 4_999;

function keysAt(fake: FakeKms, changes: Partial<KmsOptions> = {}): KmsKeys {
  return new KmsKeys({ keyId: KEY, endpoint: fake.endpoint, region: 'us-east-1', credentials: { accessKeyId: 'test', secretAccessKey: 'testtest' }, ...changes });
}

describeKeyProvider('KMS, as a fake speaks it', async () => {
  const fake = await startFakeKms([KEY, OTHER]);
  return { provider: keysAt(fake), again: keysAt(fake), otherKey: keysAt(fake, { keyId: OTHER }), [Symbol.asyncDispose]: () => fake[Symbol.asyncDispose]() };
});

describe('KMS', () => {
  let fake: FakeKms;
  beforeAll(async () => {
    fake = await startFakeKms([KEY]);
  });
  afterAll(() => fake[Symbol.asyncDispose]());
  beforeEach(() => {
    fake.answer = () => ({ kind: 'pass' });
    fake.seen.length = 0;
  });

  const dataKey = randomBytes(32);
  /** These, then as many of the last as are asked for. */
  function answers(...list: readonly [KmsAnswer, ...KmsAnswer[]]): void {
    let next = 0;
    fake.answer = () => list[Math.min(next++, list.length - 1)] ?? { kind: 'pass' };
  }
  const hasty = () => keysAt(fake, { clock: new HastyClock(PAUSE_MS_MAX), random: () => 0.999 });

  test('both calls name the key and the context', async () => {
    const keys = keysAt(fake);
    await keys.unwrap(await keys.wrap(dataKey, CONTEXT), CONTEXT);
    expect(fake.seen).toMatchObject([
      { operation: 'Encrypt', body: { KeyId: KEY, EncryptionContext: CONTEXT } },
      { operation: 'Decrypt', body: { KeyId: KEY, EncryptionContext: CONTEXT } },
    ]);
  });

  test.each([
    ['AccessDeniedException', /access is denied.*kms:Encrypt.*kms:Decrypt/],
    ['UnrecognizedClientException', /access is denied/],
    ['ExpiredTokenException', /access is denied/],
    ['InvalidSignatureException', /access is denied/],
    ['NotFoundException', /no such key/],
    ['DisabledException', /enable it/],
    ['KMSInvalidStateException', /deletion/],
    ['InvalidKeyUsageException', /cannot be used/],
    ['ValidationException', /refused the request/],
    ['IncorrectKeyException', /another key/],
    ['InvalidCiphertextException', /changed, or is that of another job or tenant/],
  ])('%s ends at the first attempt, with what to do', async (type, message) => {
    answers({ kind: 'error', type });
    await expect(keysAt(fake).unwrap(randomBytes(100), CONTEXT)).rejects.toMatchObject({ code: 'ERR_KEY', message: expect.stringMatching(message) as string });
    expect(fake.seen).toHaveLength(1);
  });

  test.each([
    ['ThrottlingException', 400], ['TooManyRequestsException', 429], ['LimitExceededException', 400], ['KeyUnavailableException', 500], ['DependencyTimeoutException', 503],
    ['KMSInternalException', 500], ['InternalFailure', 500],
  ])('%s is tried again until it passes, with backoff', async (type, status) => {
    answers({ kind: 'error', type, status }, { kind: 'error', type, status }, { kind: 'drop' }, { kind: 'pass' });
    const clock = new HastyClock(PAUSE_MS_MAX);
    await keysAt(fake, { clock, random: () => 0.999 }).wrap(dataKey, CONTEXT);
    expect(fake.seen).toHaveLength(4);
    expect(clock.pausesMs.map(Math.round)).toEqual([50, 100, 200]);
  });

  test.each([{ kind: 'error', type: 'ThrottlingException' }, { kind: 'drop' }] as const)('what does not pass is ERR_STORE when the deadline comes: %j', async (answer) => {
    answers(answer);
    await expect(hasty().wrap(dataKey, CONTEXT)).rejects.toMatchObject({ code: 'ERR_STORE', message: expect.stringMatching(/^kms:alias\/ruminate: no answer that could be used in \d+ attempts/) as string });
    expect(fake.seen.length).toBeGreaterThan(5);
  });

  test('a call that is never answered is given up, tried again, and ERR_STORE in the end', async () => {
    answers({ kind: 'hang' });
    const clock = new ManualClock();
    const call = keysAt(fake, { clock, random: () => 0, deadlineMs: 12_000 }).wrap(dataKey, CONTEXT);
    const ended = expect(call).rejects.toMatchObject({ code: 'ERR_STORE' });
    for (const attempt of [1, 2, 3]) {
      while (fake.seen.length < attempt) {
        clock.advance(0);
        await clock.settle();
      }
      clock.advance(5_000);
    }
    await ended;
    expect(fake.seen).toHaveLength(3);
  });

  test('a cancelled call ends in the middle of a hang', async () => {
    answers({ kind: 'hang' });
    const controller = new AbortController();
    const call = keysAt(fake).wrap(dataKey, CONTEXT, { signal: controller.signal });
    const ended = expect(call).rejects.toMatchObject({ code: 'ERR_CANCELLED' });
    while (fake.seen.length === 0) await new ManualClock().settle();
    controller.abort();
    await ended;
  });

  test.each([
    ['is cut', (body: string) => body.slice(0, -3)],
    ['has more behind it', (body: string) => `${body}]`],
    ['is no object', (body: string) => JSON.stringify(Buffer.from(body).toString('latin1'))],
    ['has no key', () => '{}'],
    ['is an error page with the key in it', (body: string) => `<html>${body}</html>`],
  ])('an answer that %s shows no byte of the key', async (_, body) => {
    const wrapped = await keysAt(fake).wrap(dataKey, CONTEXT);
    answers({ kind: 'raw', body });
    const call = hasty().unwrap(wrapped, CONTEXT);
    const shown = await shownBy(call);
    await expect(call).rejects.toMatchObject({ code: 'ERR_STORE' });
    expectNothingOf(dataKey, shown);
  });

  test('a refusal that quotes what was sent shows no byte of it', async () => {
    for (const type of ['ValidationException', 'AccessDeniedException', 'ThrottlingException', 'SomethingElse']) {
      answers({ kind: 'error', type, message: `not valid: ${dataKey.toString('base64')} ${dataKey.toString('hex')}` });
      expectNothingOf(dataKey, await shownBy(hasty().wrap(dataKey, CONTEXT)));
    }
  });

  test('no credentials and no region are matters of the key, said at once', async () => {
    const environment = { ...process.env };
    for (const name of Object.keys(process.env)) if (name.startsWith('AWS_')) delete process.env[name];
    Object.assign(process.env, { AWS_EC2_METADATA_DISABLED: 'true', AWS_SHARED_CREDENTIALS_FILE: '/dev/null', AWS_CONFIG_FILE: '/dev/null' });
    try {
      const withoutCredentials = await openKeyProvider(`kms:${KEY}`, { environment: { AWS_ENDPOINT_URL_KMS: fake.endpoint } });
      await expect(withoutCredentials.wrap(dataKey, CONTEXT)).rejects.toMatchObject({ code: 'ERR_KEY', message: expect.stringContaining('no AWS credentials') as string });
      const withoutRegion = await openKeyProvider(`kms:${KEY}`, { environment: {} });
      await expect(withoutRegion.wrap(dataKey, CONTEXT)).rejects.toMatchObject({ code: 'ERR_KEY', message: expect.stringContaining('AWS_REGION') as string });
    } finally {
      for (const name of Object.keys(process.env)) delete process.env[name];
      Object.assign(process.env, environment);
    }
    expect(fake.seen).toHaveLength(0);
  });
});
