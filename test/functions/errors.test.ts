/** What a client sees of failures: one table, two forms, nothing of ours. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, test } from 'vitest';

import { ERROR_CODES, EngineError, type ErrorCode } from '../../engine/core/errors.ts';
import { CODES, ENGINE_CODES, HTTP_CODES, type HttpCode, HttpError, failureOf, isFault } from '../../functions/errors.ts';
import { envelopeOf } from '../../functions/openai/errors.ts';
import { problemOf } from '../../functions/problem.ts';
import { ROOT } from '../helpers/setup.ts';

const SECRET = 'cannot read the folder secret-place';

describe('the table of errors', () => {
  test.each(Object.keys(ERROR_CODES) as ErrorCode[])('%s has a status, and from 500 on tells nothing of what happened', (code) => {
    const failure = failureOf(new EngineError(code, SECRET));
    expect(failure.status).toBeGreaterThanOrEqual(400);
    expect(failure.status).toBeLessThan(600);
    expect(failure.code).toMatch(/^[a-z]+(_[a-z]+)*$/);
    if (failure.status >= 500) expect(JSON.stringify(envelopeOf(failure))).not.toContain('secret');
    if (ERROR_CODES[code][0] === 'bug') expect(failure.status).toBe(500);
  });

  test('an error that is none of ours is an internal one and says nothing', () => {
    for (const error of [new TypeError(SECRET), SECRET, null, Object.assign(new Error(SECRET), { name: 'EngineError', code: 'ERR_NOBODYS' })]) {
      expect(failureOf(error)).toMatchObject({ status: 500, code: 'internal_error' });
      expect(JSON.stringify(problemOf(failureOf(error), 'r'))).not.toContain('secret');
    }
  });

  test('a refusal is no fault of the server; what it does not expect is', () => {
    const edge = (Object.keys(HTTP_CODES) as HttpCode[]).filter((code) => isFault(failureOf(new HttpError(code, 'x'))));
    expect(edge).toEqual(['internal_error']);
    expect(isFault(failureOf(new EngineError('ERR_OVERLOADED', 'x')))).toBe(false);
    for (const error of [new EngineError('ERR_STORE', 'x'), new EngineError('ERR_KEY', 'x'), new TypeError('x')]) expect(isFault(failureOf(error))).toBe(true);
  });

  test('a model or job that is not there is not described', () => {
    expect(failureOf(new EngineError('ERR_MODEL_NOT_FOUND', SECRET)).message).not.toContain('secret');
    expect(failureOf(new EngineError('ERR_JOB_NOT_FOUND', SECRET)).message).not.toContain('secret');
  });

  test('the field that the engine refuses is named as the request names it', () => {
    const of = (message: string) => envelopeOf(failureOf(new EngineError('ERR_OPTION', message))).error.param;
    expect(of('sampling.temperature must be a number from 0 to 10; got 11.')).toBe('temperature');
    expect(of('budget.width must be an integer from 1 to 256; got 0.')).toBe('hyperscale.width');
    expect(of('messages.0.role must be text of 1 to 64 bytes; got "".')).toBe('messages.0.role');
    expect(of('Something else.')).toBeNull();
  });

  test('is in docs/HTTP.md and in the schemas of both forms, with every code and its status', () => {
    const page = readFileSync(path.join(ROOT, 'docs', 'HTTP.md'), 'utf8');
    const said = [...page.matchAll(/^\| (\d{3}) \| (.*) \|$/gm)].flatMap(([, status, codes = '']) => [...codes.matchAll(/`(\w+)`/g)].map(([, code]) => `${status} ${code}`));
    const is = [...Object.entries(HTTP_CODES).map(([code, [status]]) => `${status} ${code}`), ...Object.values(ENGINE_CODES).map(([status, code]) => `${status} ${code}`)];
    expect(said.toSorted()).toEqual([...new Set(is)].toSorted());
    expect([...new Set(said.map((line) => line.slice(4)))].toSorted()).toEqual(CODES);
  });

  test('both forms carry the same code and sentence', () => {
    const failure = failureOf(new HttpError('unsupported_parameter', 'tools is not supported.', { param: 'tools' }));
    expect(envelopeOf(failure)).toEqual({ error: { message: 'tools is not supported.', type: 'invalid_request_error', param: 'tools', code: 'unsupported_parameter' } });
    expect(problemOf(failure, 'req_1')).toEqual({
      type: 'urn:ruminate:error:unsupported_parameter', title: 'unsupported parameter', status: 400,
      detail: 'tools is not supported.', code: 'unsupported_parameter', param: 'tools', request_id: 'req_1',
    });
  });
});
