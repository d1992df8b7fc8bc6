/** A form with a file: long contents are cut out before the form is taken apart, and are what was sent, byte for byte. */
import { expect, test } from 'vitest';

import { systemClock } from '../../engine/core/clock.ts';
import { readUpload } from '../../functions/upload.ts';

const LONG = 64 << 10;
const request = (body: FormData | string, type?: string): Request =>
  new Request('http://localhost/v1/files', { method: 'POST', body, ...(type === undefined ? {} : { headers: { 'content-type': type } }) });
const formOf = (parts: Readonly<Record<string, string | File>>): FormData => {
  const form = new FormData();
  for (const [name, value] of Object.entries(parts)) form.set(name, value);
  return form;
};

test.each([0, 1, 64, 65, LONG - 300, LONG - 1, LONG, LONG + 1, (1 << 20) - 5, (1 << 20) + 5, 3 << 20])('a file of %i bytes is what was sent', async (size) => {
  // Every byte there is, line ends and what looks like a boundary among them.
  const bytes = Uint8Array.from({ length: size }, (_, i) => (i % 1_000 < 40 ? '\r\n------formdata-undici-00000000\r\n\r\n'.charCodeAt(i % 37) : (i * 31 + (i >> 8)) & 255));
  const { filename, content, fields } = await readUpload(request(formOf({ purpose: 'batch', file: new File([bytes], 'a "b".jsonl') })), systemClock, 'file');
  expect({ filename, fields }).toEqual({ filename: 'a "b".jsonl', fields: { purpose: 'batch' } });
  expect(Buffer.compare(content, bytes)).toBe(0);
});

test('a long field is what was sent, before the file and after it', async () => {
  const text = 'é\r\n'.repeat(LONG);
  const { content, fields } = await readUpload(request(formOf({ a: text, file: new File(['x'.repeat(LONG * 2)], 'f'), b: text })), systemClock, 'file');
  // The form's own rule: line ends are CR LF.
  expect(fields).toEqual({ a: text, b: text });
  expect(content.length).toBe(LONG * 2);
});

test('a long part that is none is refused', async () => {
  const type = 'multipart/form-data; boundary=xyz';
  const long = 'y'.repeat(LONG * 2);
  for (const body of [`--xyz\r\n${long}\r\n--xyz--\r\n`, `--xyz\r\ncontent-disposition: form-data; name="file"; filename="f"\r\n\r\n${long}`, long]) {
    await expect(readUpload(request(body, type), systemClock, 'file')).rejects.toMatchObject({ code: 'invalid_value' });
  }
});

test('a form of many parts is refused before it is taken apart', async () => {
  const many = formOf({ file: new File(['x'], 'f'), ...Object.fromEntries(Array.from({ length: 8 }, (_, i) => [`f${i}`, ''])) });
  await expect(readUpload(request(many), systemClock, 'file')).rejects.toMatchObject({ code: 'invalid_value', message: expect.stringContaining('at most') });
});
