import { describe, expect, test } from 'vitest';

import { seededRandom } from '../../engine/adapters/memory-faults.ts';
import { DEFAULT_THINKING, type Thinking, splitThinking } from '../../engine/job/answer.ts';
import { ThinkingSplitter } from '../../engine/job/splitter.ts';

function joined(parts: readonly string[], delimiters: Thinking | null, opened: boolean): { readonly reasoning: string; readonly content: string } {
  const splitter = new ThinkingSplitter(delimiters, opened);
  const deltas = [...parts.map((part) => splitter.push(part)), splitter.flush()];
  return { reasoning: deltas.map(({ reasoning }) => reasoning).join(''), content: deltas.map(({ content }) => content).join('') };
}

describe('text that comes in pieces', () => {
  // `((` and `))` share their characters with themselves; `#` opens and closes.
  test.each<Thinking | null>([DEFAULT_THINKING, { open: '((', close: '))' }, { open: '#', close: '#' }, null])('is parted as the whole text is, with %j', (delimiters) => {
    const { open, close } = delimiters ?? DEFAULT_THINKING;
    const words = [open, close, open.slice(0, -1), close.slice(1), close.slice(0, 1), ' ', '\n', 'a', 'answer 4', ''];
    for (let seed = 0; seed < 2_000; seed++) {
      const random = seededRandom(seed);
      const text = Array.from({ length: 1 + Math.floor(random() * 6) }, () => words[Math.floor(random() * words.length)]).join('');
      const parts: string[] = [];
      for (let rest = text; rest !== ''; rest = rest.slice(parts.at(-1)?.length)) parts.push(rest.slice(0, 1 + Math.floor(random() * 4)));
      for (const opened of [true, false]) {
        const { thinking, answer } = splitThinking(text, delimiters, opened);
        expect(joined(parts, delimiters, opened), JSON.stringify({ parts, opened })).toEqual({ reasoning: thinking, content: answer ?? '' });
      }
    }
  });

  test('is given out as soon as it cannot be a delimiter any more', () => {
    const splitter = new ThinkingSplitter(DEFAULT_THINKING, true);
    expect(splitter.push(' ')).toEqual({ reasoning: '', content: '' });
    expect(splitter.push('2+2 is 4</thi')).toEqual({ reasoning: ' 2+2 is 4', content: '' });
    expect(splitter.push('s</think')).toEqual({ reasoning: '</this', content: '' });
    expect(splitter.push('>4')).toEqual({ reasoning: '', content: '4' });
    expect(splitter.push('</think>')).toEqual({ reasoning: '', content: '</think>' });
  });
});
