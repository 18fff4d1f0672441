// The built package as its users meet it: imported, required, typed, and as the README shows it.
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { runFixture } from './support.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const read = (name: string): string => readFileSync(path.join(ROOT, name), 'utf8');

describe('the package', () => {
  it('can be imported', async () => {
    const { first, last, version } = await runFixture<{ first: number; last: number; version: string }>('import.mjs');
    expect(last).toBeLessThan(first / 2);
    expect(version).toBe((JSON.parse(read('package.json')) as { version: string }).version);
  });

  it('can be required, and is the same one then', async () => {
    expect(await runFixture('require.cjs')).toEqual({ one: true, seen: 1, sum: 9, is: true });
  });

  it('has types for both', { timeout: 60_000 }, () => {
    const project = mkdtempSync(path.join(tmpdir(), 'chainrule-types-'));
    try {
      mkdirSync(path.join(project, 'node_modules'));
      symlinkSync(ROOT, path.join(project, 'node_modules/chainrule'));
      const use =
        'export const y: chainrule.Tensor = chainrule.tensor([1]).add(1);\n// @ts-expect-error\nchainrule.zeros(2);\n';
      writeFileSync(path.join(project, 'module.mts'), `import * as chainrule from 'chainrule';\n${use}`);
      writeFileSync(path.join(project, 'common.cts'), `import chainrule = require('chainrule');\n${use}`);
      const compilerOptions = {
        module: 'nodenext',
        target: 'es2022',
        lib: ['es2023', 'esnext.disposable'],
        strict: true,
        noEmit: true,
        skipLibCheck: false,
        types: ['node'],
        typeRoots: [path.join(ROOT, 'node_modules/@types')],
      };
      writeFileSync(
        path.join(project, 'tsconfig.json'),
        JSON.stringify({ compilerOptions, include: ['*.mts', '*.cts'] }),
      );
      const tsc = path.join(ROOT, 'node_modules/typescript/bin/tsc');
      const { status, stdout } = spawnSync(process.execPath, [tsc, '-p', project], { encoding: 'utf8' });
      expect([status, stdout]).toEqual([0, '']);
    } finally {
      rmSync(project, { recursive: true });
    }
  });
});

describe('the README', () => {
  const fences = [...read('README.md').matchAll(/^```js\n([\s\S]*?)^```/gm)].map(([, code]) => code!);
  const examples = fences.filter((code) => code.includes("from 'chainrule'"));

  it('begins with an example, and has one of compile', () => {
    expect(examples.map((code) => /compile\(/.test(code))).toEqual([false, true]);
  });

  it.each(examples.map((_, i) => i))('has example %i that runs as it stands', { timeout: 60_000 }, (i) => {
    const { status, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', examples[i]!], {
      cwd: ROOT,
      encoding: 'utf8',
      timeout: 50_000,
    });
    expect({ status, stderr }).toMatchObject({ status: 0 });
  });
});
