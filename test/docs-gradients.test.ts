// docs/gradients.md is the page that the op table's rows imply when all its tests pass: an op added, or a row changed,
// without `npm run docs:gradients` fails here. That the tests pass is for the walkers to show.
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { opSamples } from './op-samples.ts';
import { BESIDE, type Check, claims, files, pageOf } from './op-table.ts';

const read = (path: string): string => readFileSync(new URL(path, import.meta.url), 'utf8');
const lineOf = (op: string, page: string): string => page.split('\n').find((line) => line.startsWith(`| \`${op}\` |`))!;
/** The page when one check of relu, and no other, has the given result. */
const pageWith = (check: Check, result?: boolean): string =>
  pageOf((claim) => (claim === `relu > ${check}` ? result : true));

describe('docs/gradients.md', () => {
  it('is what the rows imply when all tests pass', () => {
    expect(read('../docs/gradients.md'), 'run npm run docs:gradients').toBe(pageOf(() => true));
  });

  it('has a line for each op, and for nothing else', () => {
    const named = [...read('../docs/gradients.md').matchAll(/^\| `(\w+)` \|/gm)].map(([, name]) => name);
    expect(named.sort()).toEqual(Object.keys(opSamples).sort());
  });
});

describe('a cell of the table', () => {
  it.each<[Check, string]>([
    ['ops.forward: is as its reference in float64', '| `relu` | ✗ | ✓ | ✓ | ✓ | ✓ | ✓ | ✗ | ✓ | ✓ |'],
    [
      'ops.special: treats special values of float32 as stated, in every lane',
      '| `relu` | ✗ | ✓ | ✓ | ✓ | ✓ | ✗ | ✓ | ✓ | ✓ |',
    ],
    ['ops.gradcheck: passes gradcheck, and shows something', '| `relu` | ✓ | ✗ | ✓ | ✓ | ✓ | ✓ | ✓ | ✓ | ✓ |'],
    [
      'ops.forward-mode: has the derivative forward that it has backward',
      '| `relu` | ✓ | ✓ | ✗ | ✓ | ✓ | ✓ | ✓ | ✓ | ✓ |',
    ],
    ['ops.gradients: has second derivatives', '| `relu` | ✓ | ✓ | ✓ | ✗ | ✓ | ✓ | ✓ | ✓ | ✓ |'],
    ['ops.vmap: has gradients for each example', '| `relu` | ✓ | ✓ | ✓ | ✓ | ✗ | ✓ | ✓ | ✓ | ✓ |'],
    ['ops.views: takes inputs that are expanded', '| `relu` | ✓ | ✓ | ✓ | ✓ | ✓ | ✓ | ✓ | ✓ | ✗ |'],
  ])('shows that "%s" fails', (check, line) => {
    const page = pageWith(check, false);
    expect(lineOf('relu', page)).toBe(line);
    expect(page.split('\n').filter((other) => other.startsWith('| `') && other.includes('✗'))).toEqual([line]);
  });

  it('is an error where a check has not been run', () => {
    expect(() => pageWith('ops.forward: is as its reference in bfloat16')).toThrow(
      'relu, forward: no result of "relu > ops.forward: is as its reference in bfloat16"',
    );
  });
});

// Titles as they stand in the walkers, `%s` for the part that differs; `describe.each` names the op by it.
describe.each(files)('the tests of %s', (file) => {
  const titles = [...read(`${file}.test.ts`).matchAll(/(?:\bit\(|\)\()\s*'(.*?)'/g)]
    .map(([, title]) => title!)
    .filter((title) => title !== '%s');
  const checks = [...[...claims].map((claim) => claim.replace(/.* > /, '')), ...BESIDE]
    .filter((check) => check.startsWith(`${file}: `))
    .map((check) => check.slice(file.length + 2));
  const fits = (title: string, check: string): boolean =>
    title.includes('%s')
      ? check.startsWith(title.split('%s')[0]!) && check.endsWith(title.split('%s')[1]!)
      : check === title;

  it('stand behind a cell, each of them, and no cell stands on others', () => {
    expect(titles).not.toHaveLength(0);
    expect(titles.filter((title) => !checks.some((check) => fits(title, check)))).toEqual([]);
    expect([...new Set(checks)].filter((check) => !titles.some((title) => fits(title, check)))).toEqual([]);
  });
});
