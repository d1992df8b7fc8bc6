/** Key files: the contract, and the file itself. */
import { chmodSync, existsSync, mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { execFileSync } from 'node:child_process';
import path from 'node:path';
import { inspect } from 'node:util';
import { afterAll, describe, expect, test } from 'vitest';

import { makeKeyFile, readKeyFile } from '../../engine/adapters/key-file.ts';
import { keyProviderOf, openKeyProvider } from '../../engine/adapters/key-url.ts';
import { folder, removeFolders } from '../helpers/models.ts';
import { describeKeyProvider, expectNothingOf, shownBy } from './key-provider.ts';

afterAll(removeFolders);

describeKeyProvider('a file', async () => {
  const [file, other] = [path.join(folder(), 'key'), path.join(folder(), 'key')];
  return { provider: await makeKeyFile(file), again: await readKeyFile(file), otherKey: await makeKeyFile(other), [Symbol.asyncDispose]: async () => {} };
});

describe('a key file', () => {
  const refused = (...words: readonly string[]) => ({ code: 'ERR_KEY', message: expect.stringMatching(words.join('.*')) as string });

  test('has 32 bytes of its own that only its owner may read, whatever the umask', async () => {
    const [first, second] = [path.join(folder(), 'key'), path.join(folder(), 'key')];
    const before = process.umask(0o777);
    try {
      await makeKeyFile(first);
    } finally {
      process.umask(before);
    }
    await makeKeyFile(second);
    for (const file of [first, second]) expect([statSync(file).size, statSync(file).mode & 0o777]).toEqual([32, 0o600]);
    expect(readFileSync(first).equals(readFileSync(second))).toBe(false);
  });

  test('is never overwritten, nor is what a link points to', async () => {
    const where = folder();
    const file = path.join(where, 'key');
    await makeKeyFile(file);
    const content = readFileSync(file);
    await expect(makeKeyFile(file)).rejects.toMatchObject(refused('is there already'));
    symlinkSync('elsewhere', path.join(where, 'link'));
    await expect(makeKeyFile(path.join(where, 'link'))).rejects.toMatchObject(refused('is there already'));
    expect(readFileSync(file).equals(content)).toBe(true);
    expect(existsSync(path.join(where, 'elsewhere'))).toBe(false);
    await expect(makeKeyFile(path.join(where, 'none', 'key'))).rejects.toMatchObject(refused('no folder'));
  });

  test('that others may use is refused, with what to do', async () => {
    const file = path.join(folder(), 'key');
    await makeKeyFile(file);
    for (const mode of [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644, 0o660, 0o666, 0o777]) {
      chmodSync(file, mode);
      await expect(readKeyFile(file), mode.toString(8)).rejects.toMatchObject(refused(mode.toString(8), 'chmod 600'));
    }
    for (const mode of [0o600, 0o400]) {
      chmodSync(file, mode);
      await readKeyFile(file);
    }
  });

  test('that is absent, short, long, a folder or a pipe is refused at once', async () => {
    const where = folder();
    await expect(readKeyFile(path.join(where, 'none'))).rejects.toMatchObject(refused('ruminate key new'));
    for (const bytes of [0, 31, 33, 100_000]) {
      writeFileSync(path.join(where, `${bytes}`), Buffer.alloc(bytes, 7), { mode: 0o600 });
      await expect(readKeyFile(path.join(where, `${bytes}`))).rejects.toMatchObject(refused('32 bytes'));
    }
    mkdirSync(path.join(where, 'folder'), { mode: 0o700 });
    await expect(readKeyFile(path.join(where, 'folder'))).rejects.toMatchObject(refused('no regular file'));
    execFileSync('mkfifo', ['-m', '600', path.join(where, 'pipe')]);
    await expect(readKeyFile(path.join(where, 'pipe'))).rejects.toMatchObject(refused('no regular file'));
  });

  test('shows its key nowhere: not in what is printed of it, its id or its errors', async () => {
    const file = path.join(folder(), 'key');
    await makeKeyFile(file);
    const key = readFileSync(file);
    const opened = await readKeyFile(file);
    expectNothingOf(key, inspect(opened, { depth: 10, showHidden: true }) + JSON.stringify(opened));
    writeFileSync(file, Buffer.concat([key, key]));
    expectNothingOf(key, await shownBy(readKeyFile(file)));
  });

  test('says which file is needed when it is the wrong one', async () => {
    const [right, wrong] = [await makeKeyFile(path.join(folder(), 'key')), await makeKeyFile(path.join(folder(), 'key'))];
    const context = { tenant: 'acme', job: 'sums', origin: 'sums' };
    await expect(wrong.unwrap(await right.wrap(new Uint8Array(32), context), context)).rejects.toMatchObject(refused(right.id, wrong.id));
  });
});

describe('the URL of a key', () => {
  test('file: takes the path as it is written', async () => {
    const file = path.join(folder(), 'a key%20#1');
    const { id } = await makeKeyFile(file);
    expect((await openKeyProvider(`file:${file}`)).id).toBe(id);
    expect((await openKeyProvider(`file:${path.relative(process.cwd(), file)}`)).id).toBe(id);
    expect((await keyProviderOf({ environment: { RUMINATE_KEY: `file:${file}` } }))?.id).toBe(id);
  });

  test('kms: takes ids, aliases and ARNs and nothing else', async () => {
    for (const key of ['1234abcd-12ab-34cd-56ef-1234567890ab', 'mrk-1234abcd12ab34cd56ef1234567890ab', 'alias/ruminate', 'arn:aws:kms:eu-west-1:123456789012:alias/a/b', 'arn:aws-cn:kms:cn-north-1:123456789012:key/1234abcd']) {
      expect((await openKeyProvider(`kms:${key}`)).id).toBe(`kms:${key}`);
    }
    for (const key of ['a b', 'alias/', 'alias/ü', 'arn:aws:s3:::bucket', 'arn:aws:kms:eu-west-1:1:key/x', 'a\n', '../x', 'x'.repeat(65)]) {
      await expect(openKeyProvider(`kms:${key}`), key).rejects.toMatchObject({ code: 'ERR_KEY' });
    }
    await expect(openKeyProvider('kms:alias/x', { environment: { AWS_ENDPOINT_URL_KMS: 'ftp://x' } })).rejects.toMatchObject({ code: 'ERR_KEY' });
  });

  test('a key put in its place is refused and not shown', async () => {
    const key = Buffer.from(Array.from({ length: 32 }, (_, i) => 37 * i + 11));
    for (const url of [key.toString('base64'), key.toString('hex'), `base64:${key.toString('base64')}`, `kms:${key.toString('base64')}`]) {
      expectNothingOf(key, await shownBy(openKeyProvider(url)));
      await expect(openKeyProvider(url)).rejects.toMatchObject({ code: 'ERR_KEY' });
    }
  });

  test('unset stores in the clear; empty, which would do so unnoticed, is refused', async () => {
    expect(await keyProviderOf({ environment: {} })).toBeNull();
    for (const RUMINATE_KEY of ['', 'file:', 'kms:', ' ', 'FILE:/x']) await expect(keyProviderOf({ environment: { RUMINATE_KEY } })).rejects.toMatchObject({ code: 'ERR_KEY' });
  });
});
