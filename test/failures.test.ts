/** test/FAILURES.md is complete, and every test that it names is there. */
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const LESSONS = Array.from({ length: 8 }, (_, i) => `L${i + 1}`);
const ROWS = [...Array.from({ length: 72 }, (_, i) => `${i + 1}`).flatMap((row) => (row === '60' ? ['60', '60b'] : [row]))];
/** `file`: "name", "name" */
const NAMED = /`((?:native|test)\/[\w./-]+\.(?:ts|cc))`(?:: ((?:"[^"]+"(?:, )?)+))?/g;

const rows = readFileSync(path.join(ROOT, 'test', 'FAILURES.md'), 'utf8').split('\n').filter((line) => /^\| L?\d/.test(line)).map((line) => {
  const [, row = '', failure = '', required = '', shown = ''] = line.split(' | ').map((cell) => cell.replace(/^\| /, '').replace(/ \|$/, '')).flatMap((cell, i) => (i === 0 ? ['', cell] : [cell]));
  return { row, failure, required, shown };
});

test('every row of KV.md 7 and every lesson of PLATFORM.md A has its line, in order, with what must come of it', () => {
  expect(rows.map(({ row }) => row)).toEqual([...ROWS, ...LESSONS]);
  expect(rows.filter(({ failure, required }) => failure === '' || required === '')).toEqual([]);
});

test('every row names a test, or says why not yet', () => {
  expect(rows.filter(({ shown }) => !NAMED_ONCE.test(shown) && !/^(the same;|not yet: )/.test(shown)).map(({ row }) => row)).toEqual([]);
});
const NAMED_ONCE = new RegExp(NAMED.source);

test.each(rows)('row $row: the tests it names exist', ({ shown }) => {
  for (const [, file = '', names = ''] of shown.matchAll(NAMED)) {
    expect(existsSync(path.join(ROOT, file)), file).toBe(true);
    // As the source spells it: a quote in single quotes has a backslash.
    const source = readFileSync(path.join(ROOT, file), 'utf8').replaceAll("\\'", "'");
    for (const [, name = ''] of names.matchAll(/"([^"]+)"/g)) {
      const quoted = file.endsWith('.cc') ? [`"${name}"`] : [`'${name}'`, `\`${name}\``];
      expect(quoted.some((text) => source.includes(text)), `${file}: ${name}`).toBe(true);
    }
  }
});
