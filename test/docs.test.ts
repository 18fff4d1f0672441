// The pages of docs/lesson and the guides, such as docs/compile.md, print what they say they print.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Outcome, runScript } from './support.ts';

const check = (...args: string[]): Promise<Outcome> =>
  runScript('scripts/build-docs.ts', { args: ['--check', ...args] });

describe('the pages of the lesson and of the guides', { timeout: 120_000 }, () => {
  it('are up to date', async () => {
    expect(await check()).toMatchObject({ code: 0, stdout: 'pages: 16\n' });
  });
});

describe('the check of a page', { timeout: 60_000 }, () => {
  let directory: string;
  beforeEach(() => {
    directory = mkdtempSync(path.join(tmpdir(), 'chainrule-docs-'));
  });
  afterEach(() => rmSync(directory, { recursive: true }));
  const page = (text: string): void => writeFileSync(path.join(directory, 'page.md'), text);
  const code = "```ts\nimport { tensor } from 'chainrule';\nconsole.log(tensor([1, 2]).sum().item());\n```\n";

  it('passes what the code prints', async () => {
    page(`# A page\n\n${code}\`\`\`text\n3\n\`\`\`\n`);
    expect(await check(directory)).toMatchObject({ code: 0, stdout: 'pages: 1\n' });
  });

  it.each([
    ['another output', `${code}\`\`\`text\n4\n\`\`\`\n`, /page\.md: prints something else/],
    ['no output', `${code}\nMore.\n`, /page\.md:6: the code above prints/],
    ['an output of nothing', '```ts\nexport const x = 1;\n```\n```text\n1\n```\n', /page\.md:4: output of nothing/],
    [
      'a block that must throw and does not',
      '```ts throws\nMath.sqrt(1);\n```\n```text\n\n```\n',
      /must throw returned/,
    ],
    ['code that does not compile', '```ts\nconst x: string = 1;\n```\n', /page\.ts\(2,7\): error TS2322/],
  ])('finds %s', async (_, text, message) => {
    page(text);
    const { code: status, stdout, stderr } = await check(directory);
    expect(status).toBe(1);
    expect(stdout + stderr).toMatch(message);
  });

  it('shows the line of an error as the page’s', async () => {
    page('Text.\n\n```ts throws\nthrow new Error(new Error().stack!.split("\\n")[1]!.trim());\n```\n```text\n```\n');
    await runScript('scripts/build-docs.ts', { args: [directory] });
    expect(readFileSync(path.join(directory, 'page.md'), 'utf8')).toMatch(/```text\nError: at .*page\.md:4\)?\n```\n$/);
  });
});
