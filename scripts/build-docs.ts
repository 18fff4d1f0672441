// Runs the code of docs/lesson and of the guides (GUIDES) and writes what it prints into the pages; with
// --check, fails where a page differs.
// A block ```ts is code, and the block ```text right after it its output. All code of a page is one module, in which
// 'chainrule' is lib/index.ts. A block ```ts throws must throw; its output ends with the error.
import { spawn } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const MODULES = path.join(ROOT, 'out/docs');
const check = process.argv.includes('--check');
const asked = process.argv.slice(2).find((arg) => !arg.startsWith('-'));
/** Begins the output of a block; no example prints it. */
const MARK = '\u0001';

type Line = { text: string; kind: 'prose' | 'open' | 'code' | 'close'; info: string };

/** The lines of a page: prose, or those of a fenced block, with what its fence says. */
function linesOf(page: string): Line[] {
  let info: string | null = null;
  return page.split('\n').map((text) => {
    const fence = /^```(.*)$/.exec(text);
    if (fence === null) return { text, kind: info === null ? 'prose' : 'code', info: info ?? '' };
    if (info === null) return { text, kind: 'open', info: (info = fence[1]!) };
    const line = { text, kind: 'close', info } as const;
    info = null;
    return line;
  });
}

/** The page as a module, line by line, so that the line of an error is the page's. */
function moduleOf(lines: readonly Line[]): string {
  const mark = "console.log('\\u0001');";
  const caught =
    "throw 'returned'; } catch (error) { " +
    "if (error === 'returned') throw new Error('a block that must throw returned'); console.log(String(error)); }";
  const code = lines.map(({ text, kind, info }) => {
    if (info === 'ts' && kind === 'open') return mark;
    if (info === 'ts throws' && kind === 'open') return `${mark} try {`;
    if (info === 'ts throws' && kind === 'close') return caught;
    if (!info.startsWith('ts') || kind !== 'code') return '';
    return text.replace(/ from 'chainrule';$/, " from '../../lib/index.ts';");
  });
  return `${code.join('\n')}\nexport {};\n`;
}

function run(args: readonly string[], what: string): Promise<string> {
  const child = spawn(process.execPath, args, { cwd: ROOT, stdio: ['ignore', 'pipe', 'pipe'] });
  let [stdout, stderr] = ['', ''];
  child.stdout.on('data', (data: Buffer) => {
    stdout += data;
  });
  child.stderr.on('data', (data: Buffer) => {
    stderr += data;
  });
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => {
      if (code === 0) resolve(stdout);
      else reject(new Error(`${what}: exit code ${code}\n${stdout}${stderr}`));
    });
  });
}

/** What a block printed as the page shows it: places are the page's own, and lines at most 116 columns wide. */
function shown(page: string, output: string): string {
  const directory = path.relative(ROOT, path.dirname(page));
  const places = output.replaceAll(MODULES, directory).replace(/([\w-]+)\.ts:(\d+):\d+/g, '$1.md:$2');
  return places
    .trimEnd()
    .split('\n')
    .map((line) => line.trimEnd().replace(/(?=.{117})(.{1,114}) /g, '$1\n  '))
    .join('\n');
}

/** The page with `outputs` in its text blocks; every block that prints has one, and no other. */
function filled(name: string, lines: readonly Line[], outputs: readonly string[]): string {
  const result: string[] = [];
  let block = -1;
  let waiting = '';
  lines.forEach(({ text, kind, info }, i) => {
    if (info === 'text' && kind === 'code') return;
    if (kind === 'open' && info === 'text') {
      if (waiting === '') throw new Error(`${name}:${i + 1}: output of nothing that prints`);
      result.push(text, waiting);
      waiting = '';
      return;
    }
    if (waiting !== '' && (kind === 'open' || (kind === 'prose' && text !== '') || i === lines.length - 1)) {
      throw new Error(`${name}:${i + 1}: the code above prints; put a block \`\`\`text after it`);
    }
    if (kind === 'open' && info.startsWith('ts')) waiting = outputs[++block]!;
    result.push(text);
  });
  return result.join('\n');
}

/** Runs a page; true if it is what its code prints. Otherwise writes it, unless it is only to be checked. */
async function build(page: string): Promise<boolean> {
  const name = path.basename(page);
  const before = readFileSync(page, 'utf8');
  const printed = (await run(['--import', 'tsx', modulePath(page)], name)).split(`${MARK}\n`);
  const outputs = printed.slice(1).map((output) => shown(page, output));
  const after = filled(name, linesOf(before), outputs);
  if (before === after) return true;
  console.log(`${name}: ${check ? 'prints something else; npm run docs writes it down' : 'written'}`);
  if (!check) writeFileSync(page, after);
  return false;
}

const modulePath = (page: string): string => path.join(MODULES, path.basename(page).replace(/\.md$/, '.ts'));

function writeModules(): void {
  rmSync(MODULES, { recursive: true, force: true });
  mkdirSync(MODULES, { recursive: true });
  for (const page of pages) writeFileSync(modulePath(page), moduleOf(linesOf(readFileSync(page, 'utf8'))));
  writeFileSync(path.join(MODULES, 'tsconfig.json'), '{ "extends": "../../tsconfig.json", "include": ["*.ts"] }\n');
}

function pagesIn(directory: string): string[] {
  const names = readdirSync(path.resolve(ROOT, directory)).filter((name) => name.endsWith('.md'));
  return names.map((name) => path.resolve(ROOT, directory, name));
}

const GUIDES = ['autograd', 'compile', 'trace', 'telemetry', 'playground'].map((page) =>
  path.join(ROOT, `docs/${page}.md`),
);
const pages = asked === undefined ? [...pagesIn('docs/lesson'), ...GUIDES] : pagesIn(asked);
// Written outputs move the lines below them, which errors tell: a second pass settles that.
for (let pass = 0; pass < 3; pass++) {
  writeModules();
  if (pass === 0) await run(['node_modules/typescript/bin/tsc', '-p', MODULES], 'types of the examples');
  const right = await Promise.all(pages.map(build));
  if (check && right.includes(false)) process.exitCode = 1;
  if (check || !right.includes(false)) break;
}
console.log(`pages: ${pages.length}`);
