// R95-R98, the lesson's quick reference and takeaways, as docs/lesson has them: every row a call that exists, every
// takeaway a page that runs, every output generated.
import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import * as chainrule from '../../lib/index.ts';
import { data, manualSeed, mseLoss, nn, optim, randn, Tensor } from '../../lib/index.ts';
import { f64 } from '../support.ts';

const pageUrl = (name: string): URL => new URL(`../../docs/lesson/${name}`, import.meta.url);
const read = (name: string): string => readFileSync(pageUrl(name), 'utf8');
/** The code blocks of a page. */
const codeOf = (page: string): string[] => [...page.matchAll(/^```ts.*\n([\s\S]*?)^```$/gm)].map(([, code]) => code!);
const outputsOf = (page: string): string[] =>
  [...page.matchAll(/^```text\n([\s\S]*?)^```$/gm)].map(([, text]) => text!);

/** Each row of the quick reference: what its call is on, and the test that holds it to its promise. */
const ROWS: Record<string, { owner: object; test: string }> = {
  backward: { owner: Tensor.prototype, test: 'e-autograd.test.ts R48' },
  zeroGrad: { owner: optim.SGD.prototype, test: 'i-bugs.test.ts R87' },
  'y.backward(v)': { owner: Tensor.prototype, test: 'a-differentiation.test.ts R6' },
  noGrad: { owner: chainrule, test: 'i-bugs.test.ts R80' },
  detach: { owner: Tensor.prototype, test: 'e-autograd.test.ts R50' },
  retainGraph: { owner: Tensor.prototype, test: 'i-bugs.test.ts R85' },
  clipGradients: { owner: nn.utils, test: 'h-gradient-flow.test.ts R74' },
  Function: { owner: chainrule.autograd, test: 'f-custom-function.test.ts R52' },
  checkpoint: { owner: chainrule, test: 'g-checkpointing.test.ts R60' },
};
/** The call of each option or form above, where its name is another. */
const METHOD: Record<string, string> = { 'y.backward(v)': 'backward', retainGraph: 'backward' };

const rows = read('09-quick-reference.md')
  .split('\n')
  .filter((line) => line.startsWith('| ') && line.includes('`'))
  .map((line) => {
    const [, call, page] = /\| `([^`]+)` \| \[[^\]]+\]\(([^)]+)\) \|$/.exec(line)!;
    return { call: call!, page: page! };
  });

describe('R95: the quick reference', () => {
  it('R95: has nine rows, each known here', () => {
    expect(rows).toHaveLength(9);
    expect(Object.keys(ROWS)).toHaveLength(9);
    for (const key of Object.keys(ROWS)) {
      expect(
        rows.filter(({ call }) => call.includes(key)),
        key,
      ).not.toEqual([]);
    }
  });

  it.each(Object.entries(ROWS))('R95: %s exists, is shown on its page, and has its test', (key, { owner, test }) => {
    const name = METHOD[key] ?? key;
    expect(typeof Reflect.get(owner, name)).toBe('function');
    const row = rows.find(({ call }) => call.includes(key))!;
    const code = codeOf(read(row.page)).join('\n');
    expect(code).toContain(key === 'y.backward(v)' ? '.backward(f64(' : key);
    const [file, requirement] = test.split(' ') as [string, string];
    expect(readFileSync(new URL(file, import.meta.url), 'utf8')).toContain(`'${requirement}: `);
  });
});

describe('R96: the takeaways', () => {
  const takeaways = read('README.md')
    .split('## What to take away')[1]!
    .split(/^- /m)
    .slice(1)
    .map((text) => /\(([\w-]+\.md)\)/.exec(text)?.[1]);

  it('R96: are seven, each with a page of its own', () => {
    expect(takeaways).toHaveLength(7);
    expect(new Set(takeaways).size).toBe(7);
  });

  it.each(takeaways)('R96: %s runs and prints', (name) => {
    const page = read(name!);
    expect(codeOf(page).length).toBeGreaterThan(1);
    expect(outputsOf(page).every((output) => output.trim() !== '')).toBe(true);
    expect(outputsOf(page).length).toBeGreaterThan(1);
  });

  it('R96: every page is in the index, and every link leads somewhere', () => {
    const index = read('README.md');
    const names = [...index.matchAll(/\(([\w-]+\.md)\)/g)].map(([, name]) => name!);
    for (const name of new Set(names)) {
      const links = [...read(name).matchAll(/\]\(([\w./-]+\.md)\)/g)].map(([, link]) => link!);
      expect(links.length).toBeGreaterThan(name === 'errata.md' ? -1 : 0);
      for (const link of links) expect(existsSync(pageUrl(link)), `${name}: ${link}`).toBe(true);
    }
    expect(new Set(names).size).toBe(10);
  });
});

describe('R97: the training loop', () => {
  it('R97: of the quick reference has all its parts in order, and its loss falls', () => {
    const page = read('09-quick-reference.md');
    const loop = codeOf(page).find((code) => code.includes('of loader'))!;
    const parts = ['DataLoader', 'of loader', 'zeroGrad()', 'mseLoss(', '.backward()', 'clipGradients(', '.step()'];
    const places = parts.map((part) => loop.indexOf(part));
    expect(places).not.toContain(-1);
    expect(places).toEqual([...places].sort((a, b) => a - b));
    const losses = [...outputsOf(page)[0]!.matchAll(/mean loss ([\d.]+)/g)].map(([, loss]) => Number(loss));
    expect(losses).toHaveLength(3);
    expect(losses[2]!).toBeLessThan(losses[0]! / 4);
  });

  it('R97: learns, and stops at what noise allows', () => {
    manualSeed(4);
    const inputs = randn([128, 2], { dtype: 'float64' });
    const noise = randn([128, 1], { dtype: 'float64' }).mul(0.1);
    const targets = inputs.matmul(f64([[2], [-1]])).add(noise);
    const model = new nn.Linear(2, 1, { dtype: 'float64' });
    const optimizer = new optim.SGD(model.parameters(), { lr: 0.05 });
    const loader = new data.DataLoader(new data.TensorDataset(inputs, targets), { batchSize: 16, shuffle: true });
    const norms: number[] = [];
    for (let epoch = 0; epoch < 40; epoch++) {
      for (const [x, y] of loader) {
        optimizer.zeroGrad();
        mseLoss(model.call(x), y).backward();
        norms.push(nn.utils.clipGradients(model, 1.0));
        optimizer.step();
      }
    }
    expect(norms).toHaveLength(320);
    expect(norms[0]!).toBeGreaterThan(1);
    expect(mseLoss(model.call(inputs), targets).item()).toBeCloseTo(noise.square().mean().item(), 3);
  });
});

describe('R98: printed numbers', () => {
  it('R98: have the lesson’s forms', () => {
    const outputs = (name: string): string => outputsOf(read(name)).join('');
    expect(outputs('01-chain-rule.md')).toMatch(/autograd +-1\.88452087\n[\s\S]*numeric +-1\.88452087\n/);
    expect(outputs('04-batches.md')).toMatch(/Z1 \[32,16\].*Z2 \[32,1\], L = 1\.4409\n/);
    expect(outputs('04-batches.md')).toContain('|dW1|  = 0.16765495');
    expect(outputs('06-gradient-flow.md')).toMatch(/^ {5}1 {4}\d\.\d\de-\d\d {6}\d\.\d\de\+00$/m);
  });

  it('R98: every error in the errata is an entry, once', () => {
    const entries = [...read('errata.md').matchAll(/^\| (E\d+) \|/gm)].map(([, entry]) => entry);
    expect(entries).toEqual(Array.from({ length: 32 }, (_, i) => `E${i + 1}`));
    for (const name of ['01-chain-rule.md', '06-gradient-flow.md', '08-classic-bugs.md']) {
      expect(read(name)).toContain('(errata.md)');
    }
  });
});
