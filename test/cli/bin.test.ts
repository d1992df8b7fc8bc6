/** The command as a user has it: the real bin/ruminate.mjs in a process of its own, on the bundled model. */
import { spawn, spawnSync } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import type { JobResult } from '../../engine/job/generate.ts';
import { tinyModel } from '../helpers/setup.ts';

const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
const BIN = path.join(ROOT, 'bin', 'ruminate.mjs');
const PROMPT = '4 20 8 13 target 59';
const SHORT = ['run', PROMPT, '--length', '48', '--width', '2', '--seed', '7'];
const ESCAPE = '\u001b';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'ruminate-cli-'));
  // In a fresh checkout the first run builds, and says so on stderr.
  ruminate(['--version']);
}, 300_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Ended {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function ruminate(args: readonly string[], { input = '', env = process.env } = {}): Ended {
  const { status, stdout, stderr } = spawnSync(process.execPath, [BIN, ...args], { cwd: folder, input, env, encoding: 'utf8' });
  return { status, stdout, stderr };
}

describe('help', () => {
  test.each([[[]], [['run']], [['model']], [['model', 'inspect']], [['model', 'check']], [['model', 'ls']]])('of `ruminate %j` is on stdout with status 0', (command) => {
    const { status, stdout, stderr } = ruminate([...command, '--help']);
    expect([status, stderr]).toEqual([0, '']);
    expect(stdout).toMatch(/^Usage: ruminate/);
  });

  test('of every command that runs something has an example', () => {
    for (const command of [[], ['run'], ['model', 'inspect'], ['model', 'check'], ['model', 'ls']]) {
      expect(ruminate([...command, '--help']).stdout).toMatch(/Examples?:\n {2}\$ /);
    }
  });
});

describe('run', () => {
  test('--json prints one JSON object and nothing else, the same twice but for the timing', () => {
    const first = ruminate([...SHORT, '--json']);
    const second = ruminate([...SHORT, '--json']);
    expect([first.status, first.stderr, first.stdout.split('\n').length]).toEqual([0, '', 2]);
    const withoutTiming = (ended: Ended) => ({ ...(JSON.parse(ended.stdout) as JobResult), timing: null });
    expect(withoutTiming(second)).toEqual(withoutTiming(first));
    const result = JSON.parse(first.stdout) as JobResult;
    expect(Object.keys(result).sort()).toEqual(['answer', 'ballots', 'chains', 'timing', 'usage']);
    expect(Object.keys(result.usage).sort()).toEqual(
      ['completion_tokens', 'compression_ratio', 'kv_reads', 'kv_reads_prefill', 'peak_kv_bytes', 'peak_kv_tokens', 'prompt_tokens', 'read_ratio'],
    );
    expect(result.chains).toHaveLength(2);
    expect(Object.keys(result.chains[0] ?? {}).sort()).toEqual(['answer', 'finish_reason', 'live_kv_tokens', 'text', 'tokens']);
  });

  test('threads and the reference backend change nothing but the timing', () => {
    const base = JSON.parse(ruminate([...SHORT, '--json', '--threads', '1']).stdout) as JobResult;
    for (const more of [['--threads', '2'], ['--backend', 'reference']]) {
      const other = JSON.parse(ruminate([...SHORT, '--json', ...more]).stdout) as JobResult;
      expect({ ...other, timing: null }).toEqual({ ...base, timing: null });
    }
  });

  test('into a pipe it is plain text: an answer or its absence, usage, no escape codes', () => {
    const { status, stdout, stderr } = ruminate([...SHORT, '--show-chains']);
    expect(status).toBe(0);
    expect(stdout + stderr).not.toContain(ESCAPE);
    expect(stdout).toMatch(/^chain 0: /);
    expect(stdout).toMatch(/KV reads +[\d,]+, /);
    expect(stderr).toMatch(/^loading countdown\n/);
    expect(stderr.split('\n').length).toBeLessThan(8);
  });

  test('reads the prompt from a file or from standard input', () => {
    const file = path.join(folder, 'question.txt');
    writeFileSync(file, `${PROMPT}\n`);
    const options = SHORT.slice(2);
    const tokens = (ended: Ended) => (JSON.parse(ended.stdout) as JobResult).chains.map((chain) => chain.tokens);
    const expected = tokens(ruminate([...SHORT, '--json']));
    expect(tokens(ruminate(['run', '--prompt-file', file, ...options, '--json']))).toEqual(expected);
    expect(tokens(ruminate(['run', '--prompt-file', '-', ...options, '--json'], { input: `${PROMPT}\n` }))).toEqual(expected);
  });

  test('sampling and stop strings reach the job', () => {
    const tokens = (args: readonly string[]) => (JSON.parse(ruminate([...SHORT, '--json', ...args]).stdout) as JobResult).chains.map((chain) => chain.tokens);
    const greedy = tokens(['--temperature', '0']);
    const sampled = tokens(['--temperature', '1.5']);
    expect(sampled).not.toEqual(greedy);
    // Each leaves only the likeliest token, whatever the temperature.
    for (const only of [['--min-p', '0.999'], ['--top-k', '1'], ['--top-p', '0.000001']]) expect(tokens(['--temperature', '1.5', ...only]), only[0]).toEqual(greedy);
    for (const penalty of [['--repetition-penalty', '10'], ['--presence-penalty', '2'], ['--frequency-penalty', '2']]) {
      expect(tokens(['--temperature', '1.5', ...penalty]), penalty[0]).not.toEqual(sampled);
    }
    const [chain] = (JSON.parse(ruminate([...SHORT, '--temperature', '0', '--json', '--stop', ' ; ', '--stop', 'never']).stdout) as JobResult).chains;
    expect(chain?.finish_reason).toBe('stop');
    expect(chain?.text).not.toContain(';');
    expect(chain?.tokens).toEqual(greedy[0]?.slice(0, chain?.tokens.length));
  });

  test('a budget of KV reads is never exceeded', () => {
    const result = JSON.parse(ruminate([...SHORT, '--kv-read-budget', '500', '--json']).stdout) as JobResult;
    expect(result.usage.kv_reads).toBeLessThanOrEqual(500);
    expect(result.chains.map((chain) => chain.finish_reason)).toContain('kv_read_budget');
  });
});

describe('mistakes', () => {
  const cases: readonly (readonly [string, readonly string[], number, string])[] = [
    ['an unknown command', ['think'], 2, 'ERR_OPTION'],
    ['an unknown option', ['run', 'x', '--bogus'], 2, 'ERR_OPTION'],
    ['no prompt', ['run'], 2, 'ERR_OPTION'],
    ['two prompts', ['run', 'x', '--prompt-file', 'y'], 2, 'ERR_OPTION'],
    ['a prompt file that is not there', ['run', '--prompt-file', 'nowhere'], 2, 'ERR_OPTION'],
    ['a prompt file without an end', ['run', '--prompt-file', '/dev/zero'], 2, 'ERR_OPTION'],
    ['a length that is no number', ['run', 'x', '--length', 'long'], 2, 'ERR_OPTION'],
    ['a length of zero', ['run', 'x', '--length', '0'], 2, 'ERR_OPTION'],
    ['a top-p above one', ['run', 'x', '--top-p', '3'], 2, 'ERR_OPTION'],
    ['a top-p that is zero in float32', ['run', 'x', '--top-p', '1e-60'], 2, 'ERR_OPTION'],
    ['a compression ratio that a plain directory has not', ['run', PROMPT, '--cr', '4', '--model', path.join(ROOT, 'models', 'countdown', 'cr8')], 2, 'ERR_OPTION'],
    ['an unknown vote', ['run', 'x', '--vote', 'loudest'], 2, 'ERR_OPTION'],
    ['a setting without a value', ['run', 'x', '--set', 'window'], 2, 'ERR_OPTION'],
    ['a setting given twice', ['run', 'x', '--set', 'window=3', '--set', 'window_size=3'], 2, 'ERR_OPTION'],
    ['a policy that is not known', ['run', 'x', '--policy', 'sparse'], 2, 'ERR_OPTION'],
    ['KVzap without its threshold', ['model', 'inspect', 'countdown', '--policy', 'kvzap', '--set', 'surrogate=x'], 2, 'ERR_OPTION'],
    ['a surrogate that is not there', ['run', 'x', '--policy', 'kvzap', '--set', 'surrogate=nowhere', '--set', 'threshold=-4'], 1, 'ERR_MODEL_FILE'],
    ['a compression ratio without a variant', ['run', 'x', '--cr', '3'], 2, 'ERR_OPTION'],
    ['an unknown model', ['run', 'x', '--model', 'nobody'], 1, 'ERR_MODEL_NOT_FOUND'],
    ['a prompt that fills the context', ['run', PROMPT, '--length', '5000'], 1, 'ERR_PROMPT_TOO_LONG'],
    ['a budget below one token', ['run', PROMPT, '--kv-read-budget', '1'], 1, 'ERR_BUDGET'],
    ['a model that is not there', ['model', 'inspect', './nowhere'], 1, 'ERR_MODEL_NOT_FOUND'],
  ];
  test.each(cases)('%s: one line with its code', (_, args, status, code) => {
    const ended = ruminate(args);
    expect([ended.status, ended.stdout]).toEqual([status, '']);
    expect(ended.stderr).toMatch(new RegExp(`(^|\\n)ruminate: ${code}: [^\\n]+\\n$`));
    expect(ended.stderr).not.toMatch(/\n\s+at /);
  });
});

test('a command over S3 says what went wrong, and nothing of the Node versions of its SDK, which whoever runs it did not choose', () => {
  const env = { PATH: process.env.PATH, HOME: folder, AWS_REGION: 'us-east-1', AWS_EC2_METADATA_DISABLED: 'true', RUMINATE_S3_ENDPOINT: 'http://127.0.0.1:9' };
  expect(ruminate(['checkpoint', 'ls', '--store', 's3://bucket/x'], { env })).toMatchObject({ status: 2, stderr: expect.stringMatching(/^ruminate: ERR_STORE_CONFIG: [^\n]*no AWS credentials[^\n]*\n$/) as unknown });
});

describe('a built checkout', () => {
  test('is not written to by another build: it may be read-only', async () => {
    const { buildNative, bundle } = (await import(path.join(ROOT, 'scripts', 'build.mjs'))) as { buildNative(): Promise<void>; bundle(): Promise<void> };
    // The first may find work, where a test ran before there was a build.
    await buildNative();
    await bundle();
    // Tests that run beside this one put what they make there.
    mkdirSync(path.join(ROOT, 'build', 'test'), { recursive: true });
    const times = () => ['build', 'dist', 'dist/cli.mjs', 'build/native/ruminate.node'].map((name) => statSync(path.join(ROOT, name)).mtimeMs);
    const before = times();
    await buildNative();
    await bundle();
    expect(times()).toEqual(before);
  }, 300_000);
});

test.skipIf(!existsSync('/dev/full')).each([[[]], [['--json']]])('output that cannot be written is one line, %j', (more) => {
  const full = openSync('/dev/full', 'w');
  try {
    const { status, stderr } = spawnSync(process.execPath, [BIN, ...SHORT, ...more], { cwd: folder, stdio: ['ignore', full, 'pipe'], encoding: 'utf8' });
    expect(status).toBe(1);
    expect(stderr).toMatch(/(^|\n)ruminate: ERR_OUTPUT: cannot write the output: no space\n$/);
    expect(stderr).not.toMatch(/\n\s+at /);
  } finally {
    closeSync(full);
  }
});

describe('model', () => {
  test('inspect says the flavour, why, and what KV costs', () => {
    const { status, stdout } = ruminate(['model', 'inspect', 'countdown@cr8', '--length', '512', '1000']);
    expect(status).toBe(0);
    expect(stdout).toMatch(/flavour +dms_borrowed, window 16/);
    expect(stdout).toMatch(/weights +[\d,]+ parameters, f32, /);
    expect(stdout).toMatch(/KV +2\.0 KiB a token \(f32\)/);
    expect(stdout).not.toContain(ESCAPE);
    const json = JSON.parse(ruminate(['model', 'inspect', 'countdown@cr8', '--length', '512', '--json']).stdout) as { lengths: { expected_live_tokens: number; worst_bytes: number }[] };
    expect(json.lengths).toHaveLength(1);
    expect(json.lengths[0]?.expected_live_tokens).toBeLessThan(128);
    expect(json.lengths[0]?.worst_bytes).toBe(512 * 2048);
  });

  test('inspect names every type of a mixed file\'s weights', () => {
    const { stdout } = ruminate(['model', 'inspect', path.join(ROOT, 'test', 'fixtures-own', 'gguf', 'tiny_llama31_q8_0.gguf')]);
    expect(stdout).toMatch(/weights +[\d,]+ parameters, q8_0 \d+%, f32 (\d+|<1)%, /);
  });

  test('inspect and run take a policy in place of the model\'s', () => {
    const inspected = ruminate(['model', 'inspect', tinyModel('tiny_qwen3'), '--policy', 'kvzap', '--set', `surrogate=${tinyModel('kvzap_mlp')}`, '--set', 'threshold=-4', '--set', 'decode=false']);
    expect(inspected.stdout).toMatch(/flavour +kvzap \(mlp\), window 128, threshold -4, prunes the prompt only/);
    expect(inspected.stdout).toMatch(/kept +100\.0% of tokens past the window \(not measured\)/);
    const usage = (args: readonly string[]) =>
      (JSON.parse(ruminate(['run', PROMPT, '--cr', '8', '--width', '1', '--length', '40', '--temperature', '0', '--json', ...args]).stdout) as { usage: { compression_ratio: number } }).usage;
    expect(usage([]).compression_ratio).toBeGreaterThan(1);
    expect(usage(['--policy', 'dense']).compression_ratio).toBe(1);
    expect(usage(['--set', 'window=2']).compression_ratio).toBeGreaterThan(usage([]).compression_ratio);
  });

  test('check passes on the bundled model, comparing the backends byte for byte', () => {
    const { status, stdout } = ruminate(['model', 'check', 'countdown@cr8']);
    expect(stdout).not.toContain('FAIL');
    expect(stdout).toMatch(/PASS {2}cpu portable = reference/);
    expect(status).toBe(0);
  });

  test('check fails on a broken directory, with the code of what is wrong', () => {
    writeFileSync(path.join(folder, 'config.json'), '{"model_type":"qwen3"}');
    const { status, stdout } = ruminate(['model', 'check', folder]);
    expect(status).toBe(1);
    expect(stdout).toMatch(/FAIL {2}config and tensors: ERR_MODEL_/);
    const json = JSON.parse(ruminate(['model', 'check', folder, '--json']).stdout) as { passed: boolean };
    expect(json.passed).toBe(false);
  });

  test('ls lists the bundled variants', () => {
    expect(ruminate(['model', 'ls']).stdout).toMatch(/countdown@cr8 +8\.0x +dms_borrowed/);
  });
});

describe('Ctrl-C', () => {
  // The reference backend on one thread takes minutes for this job and most of a second for each step.
  const LONG = ['run', PROMPT, '--length', '1000', '--width', '256', '--threads', '1', '--no-early-stop', '--backend', 'reference'];

  test('stops at a step, prints the partial result and ends with 130', async () => {
    const { status, stdout, stderr } = await interrupted([...LONG, '--show-chains'], 'decoding');
    expect(status).toBe(130);
    expect(stderr).toContain('stopping at the next step');
    expect(stdout).toMatch(/chain 0: cancelled after \d+ token/);
  });

  // Two different signals: a second SIGINT right after the first could be merged into it, and a later one could come too late.
  test('and a second signal leaves at once', async () => {
    const { status, stdout } = await interrupted(LONG, 'decoding', ['SIGINT', 'SIGTERM']);
    expect([status, stdout]).toEqual([130, '']);
  });

  test.skipIf(!existsSync('/proc/self/stat'))('with --json stdout is one JSON object all the same', async () => {
    const { status, stdout } = await interrupted([...LONG, '--json'], 2_000);
    expect(status).toBe(130);
    expect((JSON.parse(stdout) as JobResult).chains.every((chain) => chain.finish_reason === 'cancelled')).toBe(true);
  });

  /** Not by the clock: a machine that is busy elsewhere starts it later. */
  function workedMs(pid: number | undefined): number {
    const [user, system] = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ').slice(11, 13) ?? [];
    return (Number(user) + Number(system)) * 10;
  }

  /** Sends `signals` when stderr says `cue` or, where it says nothing, when the process has worked for so many milliseconds. */
  function interrupted(args: readonly string[], cue: string | number, signals: readonly NodeJS.Signals[] = ['SIGINT']): Promise<Ended> {
    return new Promise((resolve) => {
      const child = spawn(process.execPath, [BIN, ...args], { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] });
      let sent = false;
      const send = () => {
        if (!sent) for (const signal of signals) child.kill(signal);
        sent = true;
      };
      let stdout = '';
      let stderr = '';
      child.stdout.on('data', (chunk) => (stdout += chunk));
      child.stderr.on('data', (chunk) => {
        stderr += chunk;
        if (typeof cue === 'string' && stderr.includes(cue)) send();
      });
      const looks = setInterval(() => {
        if (!sent && typeof cue === 'number' && workedMs(child.pid) >= cue) send();
      }, 50);
      child.on('close', (status) => {
        clearInterval(looks);
        resolve({ status, stdout, stderr });
      });
    });
  }
});

describe('on a terminal', () => {
  const script = spawnSync('script', ['--version'], { encoding: 'utf8' });
  const available = script.status === 0 && script.stdout.includes('util-linux');
  if (!available) process.stderr.write('SKIPPED: the live view is not tested on a terminal, because util-linux `script` is not installed\n');

  const onTerminal = (args: readonly string[], env: Record<string, string>, size = 'cols 100 rows 30') => {
    const line = [process.execPath, BIN, ...args].map((arg) => `'${arg}'`).join(' ');
    return spawnSync('script', ['-qec', `stty ${size}; ${line}`, '/dev/null'], { cwd: folder, encoding: 'utf8', env: { ...process.env, TERM: 'xterm-256color', ...env } });
  };

  test.skipIf(!available)('the live view redraws in place and shows every chain', () => {
    const { status, stdout } = onTerminal(SHORT, {});
    expect(status).toBe(0);
    expect(stdout).toContain(`${ESCAPE}[`);
    expect(stdout).toMatch(/48\/48 .*live .*x /);
  });

  test.skipIf(!available)('NO_COLOR takes the colours away and leaves the view', () => {
    const { stdout } = onTerminal(SHORT, { NO_COLOR: '1' });
    expect(stdout).not.toMatch(/\u001b\[\d+m/);
    expect(stdout).toMatch(/48\/48/);
  });

  test.skipIf(!available)('a terminal without a size gets plain lines', () => {
    expect(onTerminal(SHORT, {}, 'cols 0 rows 0').stdout).toMatch(/^loading countdown\r?\n/);
  });

  test.skipIf(!available)('TERM=dumb gets plain lines', () => {
    const { stdout } = onTerminal(SHORT, { TERM: 'dumb' });
    expect(stdout).not.toContain(ESCAPE);
  });
});
