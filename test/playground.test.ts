// The playground as its reader meets it, in Chromium: numbers shown against the engine's, files good and bad, keys, axe.
// CHAINRULE_SCREENSHOTS=1 writes docs/images/playground-*.png.
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import type { Server } from 'node:http';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type Browser, chromium, type Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { createModel, PIXELS, readMnist, scale } from '../examples/mnist/mnist.ts';
import { describeExamples, runExample } from '../lib/cli/examples.ts';
import { serve } from '../lib/cli/server.ts';
import { checkpoint, nn, type Trace, type TraceValues, tensor, trace } from '../lib/index.ts';
import { number } from '../playground/src/format.ts';
import { longTrace } from './fixtures/long-trace.ts';

const CHROMIUM = '/usr/bin/chromium';
/** Why not: the page itself is the same whatever computes. */
const skipped = existsSync(CHROMIUM)
  ? (process.env.CHAINRULE_ISA ?? process.env.CHAINRULE_BINARY_PATH) && 'it has been walked with the kernels by default'
  : `there is no ${CHROMIUM}`;
const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

/** What the page shows of one step. */
interface Shown {
  step: number;
  values: { name: string; edge: number | null; cells: string[]; norm: string | null }[];
}
const READ = `(() => ({
  step: Number(document.querySelector('[data-step]').dataset.step),
  values: [...document.querySelectorAll('.inspector [data-values]')].map((each) => ({
    name: each.dataset.values,
    edge: each.closest('[data-edge]') && Number(each.closest('[data-edge]').dataset.edge),
    cells: [...each.querySelectorAll('.scalar, td')].map((cell) => cell.textContent),
    norm: each.querySelector('.pairs dd')?.textContent ?? null,
  })),
}))()`;

/** The same from the trace. */
function expectedAt({ nodes, steps }: Trace, at: number): Shown {
  const step = steps[at]!;
  const entry = (name: string, edge: number | null, values: TraceValues) => ({
    name,
    edge,
    cells: (values.data ?? []).map(number),
    norm: values.data === null ? number(values.norm) : null,
  });
  if (step.pass !== 'backward') return { step: at, values: [entry('value', null, nodes[step.node]!.value)] };
  const edges = step.edges.flatMap(({ input, local, product, sum }) => [
    ...(local === null ? [] : [entry('local', input, local)]),
    ...(local?.data?.length === 1 ? [entry('factor', input, step.upstream)] : []),
    entry('product', input, product),
    entry('sum', input, sum),
  ]);
  return { step: at, values: [entry('upstream', null, step.upstream), ...edges] };
}

describe.skipIf(skipped)(skipped ? `the page (skipped: ${skipped})` : 'the page', () => {
  let server: Server;
  let address: string;
  let browser: Browser;
  let page: Page;
  let complaints: string[];
  const directory = mkdtempSync(path.join(tmpdir(), 'playground-'));

  beforeAll(async () => {
    ({ server, address } = await serve({ port: 0, trace: null }));
    browser = await chromium.launch({
      executablePath: CHROMIUM,
      args: ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-sync'],
    });
  });
  afterAll(async () => {
    await browser.close();
    server.close();
    rmSync(directory, { recursive: true });
  });
  beforeEach(() => {
    complaints = [];
  });
  afterEach(async () => {
    await page.close();
    // Of the policy, of scripts, of anything from elsewhere.
    expect(complaints).toEqual([]);
  });

  async function open({ width = 1280, height = 900, colorScheme = 'light' as 'light' | 'dark' } = {}): Promise<void> {
    page = await browser.newPage({ viewport: { width, height }, colorScheme, reducedMotion: 'reduce' });
    page.on('pageerror', (error) => complaints.push(error.message));
    page.on('console', (message) => {
      // A refused input is an answer of status 400, which Chromium logs.
      if (message.type() === 'error' && !message.text().includes('400 (Bad Request)')) complaints.push(message.text());
    });
    page.on('request', (asked) => {
      if (!asked.url().startsWith(address)) complaints.push(`asked for ${asked.url()}`);
    });
    await page.goto(address);
    await at(0);
  }
  const at = (step: number) => page.locator(`[data-step="${step}"]`).waitFor();
  const shown = (): Promise<Shown> => page.evaluate(READ);
  const choose = async (id: string): Promise<Trace> => {
    const { trace: expected } = runExample({ example: id });
    await page.getByLabel('Example').selectOption(id);
    await page.getByText(`1 / ${expected.steps.length}`, { exact: true }).waitFor();
    return expected;
  };
  const give = (name: string, text: string): Promise<void> => {
    const file = path.join(directory, name);
    writeFileSync(file, text);
    return page.getByLabel('Open a trace').setInputFiles(file);
  };
  const giveTrace = async (name: string, given: Trace): Promise<void> => {
    await give(name, JSON.stringify(given));
    await page.getByText(`1 / ${given.steps.length}`, { exact: true }).waitFor();
  };

  it.each(describeExamples().map(({ id }) => id))('%s: shows the numbers of the engine at every step', async (id) => {
    await open();
    const expected = await choose(id);
    for (let step = 0; step < expected.steps.length; step++) {
      await at(step);
      expect(await shown()).toEqual(expectedAt(expected, step));
      await page.keyboard.press('ArrowRight');
    }
    // There is nothing after the last step.
    await at(expected.steps.length - 1);
  });

  it('ends at 14, 28 and 42, on the edges too', async () => {
    await open();
    await page.keyboard.press('End');
    const labels = await page.locator('[data-gradient]').allTextContents();
    expect(labels.sort()).toEqual(['14', '14', '14', '28', '42']);
    await page.keyboard.press('Home');
    await at(0);
    expect(await page.locator('[data-gradient]').count()).toBe(0);
  });

  it('computes again when an input is changed, and says what is wrong with one', async () => {
    await open();
    await page.keyboard.press('End');
    const { steps } = runExample({ example: 'square' }).trace;
    await page.getByLabel('w', { exact: true }).fill('-3.5');
    const expected = runExample({ example: 'square', inputs: { w: -3.5 } }).trace;
    await expect.poll(shown).toEqual(expectedAt(expected, steps.length - 1));

    // Half a number is none yet.
    await page.getByLabel('w', { exact: true }).fill('');
    await choose('two-layers');
    await page.getByLabel('x, row 1, column 2').fill('2');
    const x = (describeExamples().find(({ id }) => id === 'two-layers')!.inputs.x!.value as number[][])[0]!.slice();
    x[1] = 2;
    await expect.poll(shown).toEqual(expectedAt(runExample({ example: 'two-layers', inputs: { x: [x] } }).trace, 0));
  });

  it('trains two moons while one watches', async () => {
    await open();
    await choose('two-moons');
    await page.getByRole('button', { name: 'Train' }).click();
    await expect
      .poll(() => page.getByText(/after \d+ iterations/).textContent(), { timeout: 20_000 })
      .toMatch(/ [1-9]\d+ /);
    await page.getByRole('button', { name: 'Stop' }).click();
    await page.getByRole('button', { name: 'Train' }).waitFor();
    const iterations = Number(/\d+/.exec((await page.getByText(/after \d+ iterations/).textContent())!)![0]);
    const { trace: expected, training } = runExample({ example: 'two-moons', inputs: { iterations } });
    expect(await shown()).toEqual(expectedAt(expected, 0));
    expect(await page.locator('figcaption', { hasText: 'Decision boundary' }).textContent()).toContain(
      `${(100 * training!.accuracy).toFixed(1)} %`,
    );
    await page.getByRole('button', { name: 'Start again' }).click();
    await page.getByText('after 0 iterations').waitFor();
  });

  it('goes to a node by click and by list, plays, and is moved by its slider', async () => {
    await open();
    const expected = await choose('diamond');
    const stepOf = (node: number, pass: string): number =>
      expected.steps.findIndex((step) => step.node === node && step.pass === pass);
    await page.locator(`[data-node="${expected.loss}"]`).click();
    await at(stepOf(expected.loss, 'forward'));
    await page.keyboard.press('End');
    await page.getByLabel('Go to').selectOption(String(expected.loss));
    await at(stepOf(expected.loss, 'backward'));
    await page.getByRole('slider').fill('1');
    await at(1);
    await page.locator('h1').click();
    await page.keyboard.press(' ');
    await at(3);
    await page.keyboard.press(' ');
    await page.getByRole('button', { name: 'Play' }).waitFor();
  });

  it('opens a trace of the MNIST job, with statistics for what is large', async () => {
    await open();
    const net = createModel();
    const { images, labels } = readMnist('t10k');
    const x = scale(tensor(images.values.subarray(0, 32 * PIXELS), { shape: [32, PIXELS] }));
    const y = tensor(labels.values.subarray(0, 32)).to('int32');
    const made = trace(() => new nn.CrossEntropyLoss().call(net.call(x), y));
    await giveTrace('mnist.json', made);
    for (let step = 0; step < made.steps.length; step++) {
      await at(step);
      expect(await shown()).toEqual(expectedAt(JSON.parse(JSON.stringify(made)) as Trace, step));
      await page.keyboard.press('ArrowRight');
    }
    expect(await page.locator('.histogram canvas').count()).toBeGreaterThan(0);
    await page.getByText('from mnist.json').waitFor();
  });

  it('shows what a checkpoint computes again', async () => {
    await open();
    const x = tensor([0.5, -1], { requiresGrad: true });
    const made = trace(() => checkpoint((t) => t.sin().exp(), x).sum(), { names: { x } });
    const again = made.steps.findIndex(({ pass }) => pass === 'recompute');
    expect(again).toBeGreaterThan(0);
    await giveTrace('checkpoint.json', made);
    await page.getByRole('slider').fill(String(again));
    expect(await page.locator('.pass').textContent()).toBe('Computed again');
    expect(await shown()).toEqual(expectedAt(made, again));
  });

  it('opens a file that is let go on it', async () => {
    await open();
    const text = JSON.stringify(runExample({ example: 'diamond' }).trace);
    await page.evaluate(`(() => {
      const transfer = new DataTransfer();
      transfer.items.add(new File([${JSON.stringify(text)}], 'dropped.json'));
      document.body.dispatchEvent(new DragEvent('drop', { dataTransfer: transfer, bubbles: true, cancelable: true }));
    })()`);
    await page.getByText('from dropped.json').waitFor();
  });

  it('points at NaN and at gradients that have become nothing', async () => {
    await open();
    const x = tensor([-1, 2], { requiresGrad: true });
    const w = tensor([1, 1], { requiresGrad: true });
    const made = trace(() => x.sqrt().add(w.mul(-1).relu()).sum(), { names: { x, w } });
    await giveTrace('bad.json', made);
    const nan = made.steps.findIndex(({ node }) => made.nodes[node]!.op === 'sqrt');
    await page
      .getByRole('button', { name: `NaN value, ${2} times: first at step ${nan + 1}` })
      .or(page.getByRole('button', { name: /^NaN value.*: first at step / }))
      .first()
      .click();
    await at(nan);
    expect(await page.locator('.inspector .badge').textContent()).toBe('NaN: 1 of 2');
    expect(await page.locator(`[data-node="${made.steps[nan]!.node}"]`).getAttribute('class')).toContain('nan');
    await page.getByRole('button', { name: /^Zero gradient of a parameter/ }).click();
    expect(await page.locator('.inspector .badge').allTextContents()).toContain('All zero');
  });

  it('shows a hostile trace as text', async () => {
    await open();
    const script = `"><img src=x onerror="document.title='hacked'"><script>document.title='hacked'</script>`;
    const made = structuredClone(runExample({ example: 'square' }).trace) as unknown as {
      nodes: Record<string, unknown>[];
      steps: unknown[];
    };
    for (const node of made.nodes)
      Object.assign(node, { name: script, op: script, module: script, at: script, dtype: script });
    await give('<b>hostile<b>.json', JSON.stringify(made));
    await page.getByText('nodes from <b>hostile<b>.json').waitFor();
    for (let step = 0; step < made.steps.length; step++) await page.keyboard.press('ArrowRight');
    expect(await page.locator('.inspector h2').textContent()).toContain(script);
    expect(await page.locator('img, #app script').count()).toBe(0);
    expect(await page.title()).toBe('chainrule playground');
  });

  it('survives numbers that no engine gives', async () => {
    await open();
    const made = structuredClone(runExample({ example: 'depth' }).trace) as unknown as {
      nodes: { value: object; shape: number[]; inputs: number[]; saved: number[] }[];
      steps: { bytes: number; upstream?: object; edges?: object[] }[];
    };
    const odd = { data: null, min: 1.7e308, max: -1.7e308, mean: null, std: -1, norm: 1.7e308, zeros: 0, nan: 7 };
    const values = { ...odd, infinite: Number.MAX_SAFE_INTEGER - 1, histogram: [0, Number.MAX_SAFE_INTEGER - 1] };
    made.nodes.forEach((node, i) => {
      Object.assign(node, {
        value: i % 2 ? values : { ...odd, norm: -3, infinite: 0, histogram: [] },
        shape: [2 ** 47, 0],
      });
    });
    const many = made.nodes.at(-1)!;
    many.inputs = new Array<number>(5000).fill(0);
    many.saved = new Array<number>(5000).fill(0);
    made.steps.forEach((step, i) => {
      step.bytes = i % 3 ? 0 : Number.MAX_SAFE_INTEGER - 1;
      if (step.upstream !== undefined) Object.assign(step, { upstream: values, edges: [] });
    });
    await giveTrace('odd.json', made as unknown as Trace);
    for (let step = 0; step < made.steps.length; step++) {
      await at(step);
      await page.keyboard.press('ArrowRight');
    }
    const last = (made as unknown as Trace).steps.findIndex(({ node }) => node === made.nodes.length - 1);
    await page.getByRole('slider').fill(String(last));
    await at(last);
    expect(await page.locator('.inspector').textContent()).toMatch(/and 4976 more.*and 4976 more/);
  });

  const good = () => structuredClone(runExample({ example: 'square' }).trace) as unknown as Record<string, unknown[]>;
  const cyclic = (): object => {
    const made = good() as { nodes?: { inputs: number[]; kind: string }[] };
    made.nodes!.find(({ kind }) => kind === 'op')!.inputs[0] = 5;
    return made;
  };
  it.each<[string, () => string, RegExp]>([
    ['cut off', () => JSON.stringify(good()).slice(0, 500), /not JSON, or cut off/],
    ['empty', () => '', /not JSON/],
    ['of something else', () => '[1, 2]', /the file is \[1,2\]/],
    ['of another version', () => JSON.stringify({ ...good(), version: 99 }), /version is 99/],
    ['of a million nodes', () => JSON.stringify({ ...good(), nodes: new Array(1e6).fill(0) }), /1000000 entries/],
    ['with a cycle', () => JSON.stringify(cyclic()), /nodes\[\d\]\.inputs is 5/],
    ['with a node that there is not', () => JSON.stringify({ ...good(), loss: 77 }), /loss is 77/],
  ])('says what is wrong with a file %s, and stays as it was', async (_, text, reason) => {
    await open();
    await page.keyboard.press('ArrowRight');
    const before = await shown();
    await give('given.json', text());
    const alert = page.getByRole('alert');
    await alert.waitFor();
    expect(await alert.textContent()).toMatch(/^given\.json: trace: /);
    expect(await alert.textContent()).toMatch(reason);
    expect(await shown()).toEqual(before);
    await page.keyboard.press('ArrowRight');
    await at(2);
    await page.getByRole('button', { name: 'Dismiss' }).click();
    expect(await alert.count()).toBe(0);
  });

  // How long it takes: npm run bench playground.
  it('draws a window of a trace of 2,000 nodes, wherever it is', async () => {
    await open();
    const made = longTrace();
    expect(made.nodes).toHaveLength(2002);
    await giveTrace('long.json', made);
    for (const key of ['End', 'ArrowLeft', 'Home', 'ArrowRight']) {
      await page.keyboard.press(key);
      const drawn = await page.locator('[data-node]').count();
      expect(drawn).toBeGreaterThan(10);
      expect(drawn).toBeLessThan(60);
    }
  });

  it('is done by keyboard alone', async () => {
    await open();
    const reached = new Set<string>();
    for (let i = 0; i < 40; i++) {
      await page.keyboard.press('Tab');
      reached.add(
        (await page.evaluate(
          `(({ activeElement: e }) => e.ariaLabel ?? e.labels?.[0]?.firstChild.textContent ?? e.textContent)(document)`,
        )) as string,
      );
    }
    for (const name of ['Open a trace', 'Example', 'x', 'w', 'b', 'Go to', 'The graph', 'Play', 'Step forward']) {
      expect([...reached]).toContain(name);
    }
  });

  const VIEWS = [1280, 390].flatMap((width) =>
    (['light', 'dark'] as const).map((colorScheme) => ({ width, colorScheme })),
  );
  it.each(VIEWS)('axe finds nothing serious, and nothing overflows: $width px, $colorScheme', async (view) => {
    await open({ ...view, height: view.width === 390 ? 844 : 900 });
    for (const { id } of describeExamples()) {
      const expected = await choose(id);
      await page.getByRole('slider').fill(String(Math.floor(expected.steps.length * 0.7)));
      await page.evaluate(AXE);
      const { violations } = (await page.evaluate('axe.run()')) as {
        violations: { id: string; impact: string; nodes: { html: string; failureSummary: string }[] }[];
      };
      const serious = violations
        .filter(({ impact }) => ['serious', 'critical'].includes(impact))
        .map(({ id: rule, nodes }) => [rule, ...nodes.map(({ html, failureSummary }) => `${html} ${failureSummary}`)]);
      expect([id, serious]).toEqual([id, []]);
      for (let step = 0; step < expected.steps.length; step++) {
        await page.getByRole('slider').fill(String(step));
        await at(step);
        const width = await page.evaluate('document.documentElement.scrollWidth');
        expect([id, step, width]).toEqual([id, step, view.width]);
      }
    }
  });

  it.runIf(process.env.CHAINRULE_SCREENSHOTS === '1').each(VIEWS)(
    'pictures, where CHAINRULE_SCREENSHOTS=1 asks for them: $width px, $colorScheme',
    async (view) => {
      await open({ ...view, height: view.width === 390 ? 844 : 900 });
      const take = async (id: string): Promise<void> => {
        await page.locator('h1').click();
        await page.screenshot({
          path: `docs/images/playground-${id}-${view.width}-${view.colorScheme}.png`,
          fullPage: true,
        });
      };
      const { steps } = await choose('two-layers');
      await page.getByRole('slider').fill(String(Math.floor(steps.length * 0.75)));
      await take('two-layers');
      await choose('two-moons');
      await page.getByRole('button', { name: 'Train' }).click();
      await page.getByText(/after [1-9]\d\d+ iterations/).waitFor();
      await page.getByRole('button', { name: 'Stop' }).click();
      await page.getByRole('slider').fill('12');
      await take('two-moons');
    },
  );
});
