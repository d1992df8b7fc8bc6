/** /docs in Chromium, light and dark, wide and narrow: whole, by itself, and what it offers to send or copy works. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';

import { hashOf } from '../../functions/auth.ts';
import { browserPath, openBrowser } from '../helpers/browser.ts';
import { type HttpApi, startApi } from '../helpers/http-api.ts';

const run = promisify(execFile);
const executable = browserPath();
if (executable === null) process.stdout.write('skipped: the page of the API, as there is no Chromium here (CHROMIUM names one)\n');

interface Seen {
  readonly page: Page;
  /** What the browser complained of. */
  readonly complaints: string[];
  /** Everything that was asked for. */
  readonly asked: string[];
}

describe.skipIf(executable === null)('the page of the API', () => {
  let api: HttpApi;
  let browser: Browser;
  beforeAll(async () => {
    api = await startApi({ metrics: async () => ({ contentType: 'text/plain', body: 'up 1\n' }), version: '1.2.3' });
    browser = await openBrowser(executable ?? '');
  });
  afterAll(async () => {
    await browser.close();
    await api[Symbol.asyncDispose]();
  });

  async function open(url: string, { scheme = 'light', width = 1_200 }: { scheme?: 'light' | 'dark'; width?: number } = {}): Promise<Seen> {
    const context = await browser.newContext({ colorScheme: scheme, viewport: { width, height: 900 } });
    await context.grantPermissions(['clipboard-read', 'clipboard-write'], { origin: new URL(url).origin });
    const page = await context.newPage();
    const complaints: string[] = [];
    const asked: string[] = [];
    page.on('console', (message) => complaints.push(`${message.type()}: ${message.text()}`));
    page.on('pageerror', (error) => complaints.push(error.message));
    page.on('requestfailed', (request) => complaints.push(`failed: ${request.url()}`));
    page.on('request', (request) => asked.push(request.url()));
    await page.goto(url, { waitUntil: 'networkidle' });
    return { page, complaints, asked };
  }

  const operation = (page: Page, id: string) => page.locator(`details.operation[id="${id}"]`);
  const copied = async (page: Page) => await page.evaluate<string>('navigator.clipboard.readText()');

  test.each([['light', 1_200], ['dark', 1_200], ['light', 390], ['dark', 390]] as const)('%s, %i pixels wide, is whole and asks nobody else for anything', async (scheme, width) => {
    const { page, complaints, asked } = await open(`${api.url}/docs`, { scheme, width });
    const { paths } = (await (await api.get('/openapi.json')).json()) as { paths: Record<string, object> };
    const ids = Object.entries(paths).flatMap(([path, methods]) => Object.keys(methods).map((method) => method + path));
    expect(ids.length).toBeGreaterThan(35);
    expect(await page.locator('details.operation').evaluateAll((all) => all.map(({ id }) => id))).toEqual(expect.arrayContaining(ids));
    expect(await page.locator('details.operation').count()).toBe(ids.length);
    // Each opens, has its answers, and fits.
    for (const id of ids) await operation(page, id).locator('summary').first().click();
    await expect.poll(() => page.locator('details.operation[open] .inside').count(), { timeout: 20_000 }).toBe(ids.length);
    expect(await page.evaluate<number>('document.documentElement.scrollWidth')).toBeLessThanOrEqual(width);
    expect(asked.every((url) => url.startsWith(`${api.url}/`) || url.startsWith('data:'))).toBe(true);
    expect(complaints).toEqual([]);
    // Ink on paper in either scheme.
    const [ink, paper] = await page.evaluate<number[][]>("['color', 'background-color'].map((name) => getComputedStyle(document.body).getPropertyValue(name).match(/\\d+/g).map(Number))");
    const lightness = (color: readonly number[] | undefined) => (color ?? []).reduce((sum, part) => sum + part, 0) / 3;
    expect(Math.abs(lightness(ink) - lightness(paper))).toBeGreaterThan(150);
    expect(lightness(paper) > 128).toBe(scheme === 'light');
    await page.context().close();
  });

  test('sends what it shows, streams the answer, and copies a command that does the same', async () => {
    const { page, complaints } = await open(`${api.url}/docs#${encodeURIComponent('post/v1/chat/completions')}`);
    const chat = operation(page, 'post/v1/chat/completions');
    expect(await chat.getAttribute('open')).not.toBeNull();
    await chat.getByRole('textbox', { name: 'Body' }).fill(JSON.stringify({ model: 'countdown@cr2', messages: [{ role: 'user', content: '7 18 17 7 target 35' }], temperature: 0, stream: true }, null, 2));
    await chat.getByRole('button', { name: 'Send' }).click();
    const output = chat.locator('.try pre');
    await output.getByText('[DONE]').waitFor();
    expect(await output.textContent()).toMatch(/^200 OK\n\ndata: \{/);
    // How docs/api.png is made.
    const picture = process.env.RUMINATE_DOCS_PICTURE;
    if (picture !== undefined) await page.screenshot({ path: picture, clip: { x: 0, y: 0, width: 1_200, height: 760 } });
    await chat.getByRole('button', { name: 'Copy as curl' }).click();
    const { stdout } = await run('bash', ['-c', await copied(page)]);
    expect(stdout).toContain('data: [DONE]');
    await page.locator('#start .copy').click();
    expect((await run('bash', ['-c', await copied(page)])).stdout).toContain('"hyperscale"');
    // A path with an id, and a refusal.
    const job = operation(page, 'get/v1/jobs/{id}');
    await job.locator('summary').first().click();
    await job.locator('.try input').fill("nobody's");
    await job.getByRole('button', { name: 'Send' }).click();
    await job.getByText('"job_not_found"').waitFor();
    // The browser says on its own that an answer was 404.
    expect(complaints.filter((text) => !text.includes('404'))).toEqual([]);
    await page.context().close();
  });

  test('finds operations by what they are called', async () => {
    const { page } = await open(`${api.url}/docs`);
    await page.getByRole('searchbox').fill('checkpoint');
    // The page answers what is typed in a turn of its own.
    await vi.waitFor(async () => {
      const shown = await page.locator('details.operation:visible .path').allTextContents();
      expect(shown.length).toBeGreaterThan(3);
      expect(shown.filter((path) => !path.startsWith('/v1/checkpoints'))).toEqual([]);
    }, { timeout: 10_000 });
    await page.getByRole('searchbox').fill('');
    await page.locator('#index a', { hasText: 'What a job would cost' }).click();
    await vi.waitFor(async () => expect(await operation(page, 'post/v1/quotes').getAttribute('open')).not.toBeNull(), { timeout: 10_000 });
    await page.context().close();
  });

  test('asks with the key that is typed in, where keys are needed', async () => {
    const sha256 = await hashOf('the-key');
    await using keyed = await startApi({ auth: { find: async (given) => (given === sha256 ? { tenant: 'anna', scopes: ['read', 'write'], rpm: 1_000, concurrent: 10 } : null) } });
    const { page } = await open(`${keyed.url}/docs`);
    const models = operation(page, 'get/v1/models');
    await models.locator('summary').first().click();
    await models.getByRole('button', { name: 'Send' }).click();
    await models.getByText('invalid_api_key').waitFor();
    await page.locator('#key input').fill('the-key');
    await models.getByRole('button', { name: 'Send' }).click();
    await models.getByText('countdown@cr8').first().waitFor();
    await page.context().close();
  });
});
