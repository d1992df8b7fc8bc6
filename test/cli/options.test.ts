import { expect, test } from 'vitest';

import { setting } from '../../cli/options.ts';

test('a setting is known by its name, also by that of config.json, and given once', () => {
  const set = ['dms_window_size=16', 'initial_alpha_offset=a=b'].reduce<Readonly<Record<string, string>>>((before, text) => setting(text, before), {});
  expect(set).toEqual({ window: '16', alpha_offset: 'a=b' });
  for (const text of ['window', '=3', '__proto__=1', 'dms___proto__=1', 'window=17']) {
    expect(() => setting(text, set)).toThrow(expect.objectContaining({ code: 'ERR_OPTION' }));
  }
  expect(setting('constructor=1', {})).toEqual({ constructor: '1' });
});
