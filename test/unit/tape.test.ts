/** A tape gives back every event that it was given, however it keeps them. */
import { describe, expect, test } from 'vitest';

import type { LogEvent } from '../../engine/job/event-log.ts';
import { EventTape } from '../../engine/job/tape.ts';

/** A chain of `width` that ends now and then; texts of no, one and many characters, in either part or in both. */
function events(count: number): readonly LogEvent[] {
  const texts = ['', 'a', '√2 = ', '\u{1f600}', 'x'.repeat(300)];
  const text = (i: number): string => texts[i % texts.length] ?? '';
  return Array.from({ length: count }, (_, seq): LogEvent => {
    const delta = { reasoning: text(seq), content: text(Math.floor(seq / 5)) };
    if (seq % 97 === 96) return { kind: 'finish', seq, chain: seq % 256, reason: 'stop', answer: seq % 2 === 0 ? null : '42', delta };
    const token = { kind: 'token', seq, chain: seq % 256, index: Math.floor(seq / 256), token: seq * 7, delta } as const;
    // As an event may one day have more to say.
    return seq % 50 === 0 ? ({ ...token, more: [seq] } as LogEvent) : token;
  });
}

describe('a tape', () => {
  const all = events(5_000);

  test('reads the same from anywhere, in any portions, at any time', () => {
    const tape = new EventTape();
    for (const [i, event] of all.entries()) {
      expect(tape.next).toBe(i);
      tape.append(event);
      if (i % 333 === 0) expect(tape.read(Math.max(0, i - 1_100), 2_000)).toEqual(all.slice(Math.max(0, i - 1_100), i + 1));
    }
    for (const [from, most] of [[0, 5_000], [1_023, 2], [1_024, 1], [4_999, 64], [5_000, 64], [1e9, 64], [2_047, 1_500]] as const) {
      expect(tape.read(from, most)).toEqual(all.slice(from, from + most));
    }
  });

  test('that may keep so many forgets the oldest, and knows from where it reads', () => {
    const tape = new EventTape(2_048);
    for (const event of all) tape.append(event);
    expect(tape.first).toBeGreaterThan(0);
    expect(tape.next - tape.first).toBeLessThan(2_048 + 1_024);
    expect(tape.read(tape.first, 5_000)).toEqual(all.slice(tape.first));
  });
});
