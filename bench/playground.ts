// Bench layer: how long the playground takes to open a trace of 2,000 nodes, and to step in it, in Chromium. Needs the
// built page. Run: `npm run bench playground`.
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { chromium, type Page } from 'playwright-core';
import { serve } from '../lib/cli/server.ts';
import { longTrace } from '../test/fixtures/long-trace.ts';
import { printTable } from './measure.ts';

const CHROMIUM = '/usr/bin/chromium';
const TIMES = 10;
const STEPS = 60;

/** Milliseconds from the key to the end of the frame that shows the step; each 20th goes to the end. */
const TIMED_STEPS = `(async () => {
  const press = (key) => document.body.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }));
  const times = [];
  for (let i = 1; i <= ${STEPS}; i++) {
    const before = performance.now();
    press(i % 20 === 0 ? 'End' : 'ArrowRight');
    await new Promise((shown) => requestAnimationFrame(() => setTimeout(shown)));
    times.push(performance.now() - before);
    if (i % 20 === 0) press('Home');
  }
  return times;
})()`;

/** Milliseconds from the choice of the file until its first step is shown. */
async function open(page: Page, file: string, steps: number): Promise<number> {
  const before = performance.now();
  await page.getByLabel('Open a trace').setInputFiles(file);
  await page.getByText(`1 / ${steps}`, { exact: true }).waitFor();
  return performance.now() - before;
}

export async function run(): Promise<void> {
  if (!existsSync(CHROMIUM)) return console.log(`no ${CHROMIUM}: not measured`);
  const directory = mkdtempSync(path.join(tmpdir(), 'playground-'));
  const file = path.join(directory, 'long.json');
  const made = longTrace();
  const { steps, nodes } = made;
  writeFileSync(file, JSON.stringify(made));
  const { server, address } = await serve({ port: 0, trace: null });
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox', '--disable-gpu'] });
  const opened: number[] = [];
  const stepped: number[] = [];
  for (let i = 0; i < TIMES; i++) {
    const page = await browser.newPage();
    await page.goto(address);
    await page.locator('[data-step="0"]').waitFor();
    opened.push(await open(page, file, steps.length));
    stepped.push(...((await page.evaluate(TIMED_STEPS)) as number[]));
    await page.close();
  }
  await browser.close();
  server.close();
  rmSync(directory, { recursive: true });
  const row = (what: string, times: number[]): string[] => {
    times.sort((a, b) => a - b);
    return [what, String(times.length), times[times.length >> 1]!.toFixed(1), times.at(-1)!.toFixed(1)];
  };
  printTable([`${nodes.length} nodes`, 'times', 'ms median', 'most'], [row('opens', opened), row('steps', stepped)]);
}
