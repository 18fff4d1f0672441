// Checks the one direction of ARCHITECTURE: in lib/ no upward import, no cycle, no barrel but those named below;
// in native/ no Node-API outside the addon, and a thin addon; in both no long file.
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

// From low to high: a file imports from its own layer and lower ones. The first layer that names a file has it.
const LAYERS = [
  ['errors', 'shape', 'dtype', 'text', 'arguments', 'call-site', 'context', 'native', 'runtime'],
  ['program/'],
  ['random', 'tensor', 'autograd/observer', 'autograd/tape', 'autograd/grad-mode'],
  ['ops/'],
  ['autograd/', 'print'],
  ['methods'],
  ['compile/'],
  ['nn/', 'optim/', 'data/', 'io/', 'random/', 'viz/'],
  ['index'],
  ['cli/'],
];
const BARRELS = ['ops/index.ts', 'optim/lr-scheduler.ts', 'index.ts'];
// What users see as `nn`, `optim`, …: gathers its directory, for index.ts alone.
const NAMESPACE = /^(\w+)\/\1\.ts$/;
const MAX_LINES = 400;
const MAX_ADDON_LINES = 500;

process.chdir(fileURLToPath(new URL('..', import.meta.url)));
const problems = [];

function sources(directory, pattern) {
  return readdirSync(directory, { recursive: true })
    .map((file) => file.split(path.sep).join('/'))
    .filter((file) => pattern.test(file))
    .sort()
    .map((file) => ({ file, text: readFileSync(path.join(directory, file), 'utf8') }));
}

const lines = (text) => text.split('\n').length - 1;

function layerOf(file) {
  const name = file.replace(/\.ts$/, '');
  return LAYERS.findIndex((layer) =>
    layer.some((entry) => (entry.endsWith('/') ? name.startsWith(entry) : name === entry)),
  );
}

// The relative imports that exist at run time: `import type` and `export type` are erased.
function importsOf({ file, text }) {
  const found = text.matchAll(
    /^\s*(?:import|export)\s(?!type\s)(?:[^'";]*?\sfrom\s+)?'(\.[^']+)'|\bimport\('(\.[^']+)'\)/gm,
  );
  return [...found].map(([, fixed, dynamic]) => path.posix.join(path.posix.dirname(file), fixed ?? dynamic));
}

function checkImports(files) {
  const graph = new Map(files.map((source) => [source.file, importsOf(source)]));
  for (const [file, imports] of graph) {
    const layer = layerOf(file);
    if (layer < 0) problems.push(`lib/${file}: in no layer; add it to LAYERS in scripts/check-layers.mjs`);
    for (const target of imports) {
      if (!graph.has(target)) problems.push(`lib/${file}: imports lib/${target}, which does not exist`);
      else if (NAMESPACE.test(target) && file !== 'index.ts')
        problems.push(`lib/${file}: imports the barrel lib/${target}`);
      else if (layer >= 0 && layerOf(target) > layer) problems.push(`lib/${file}: imports upward, from lib/${target}`);
    }
  }
  for (const file of graph.keys()) findCycle(graph, file, [], new Set());
}

// Depth first; `done` spans the walk from one start, and a cycle is reported from its first file in order only.
function findCycle(graph, file, trail, done) {
  if (file === trail[0] && trail.every((step) => step >= file)) {
    problems.push(`cycle: ${[...trail, file].map((step) => `lib/${step}`).join(' -> ')}`);
  }
  if (done.has(file)) return;
  done.add(file);
  for (const target of graph.get(file) ?? []) findCycle(graph, target, [...trail, file], done);
}

function checkLength(directory, files) {
  for (const { file, text } of files) {
    if (lines(text) > MAX_LINES) problems.push(`${directory}/${file}: ${lines(text)} lines, more than ${MAX_LINES}`);
  }
}

const lib = sources('lib', /\.ts$/);
checkImports(lib);
checkLength('lib', lib);
for (const { file, text } of lib) {
  if (!BARRELS.includes(file) && !NAMESPACE.test(file) && /^export\s(?!type\s)[^'";]*\sfrom\s+'/m.test(text)) {
    problems.push(`lib/${file}: re-exports; only ${BARRELS.join(', ')} and <name>/<name>.ts may`);
  }
}

const native = sources('native', /\.(cc|h|def)$/);
checkLength('native', native);
for (const { file, text } of native) {
  if (/^(kernels|runtime)\//.test(file) && /napi/i.test(text)) problems.push(`native/${file}: names Node-API`);
}
const addonLines = native
  .filter(({ file }) => file.startsWith('addon/'))
  .reduce((sum, { text }) => sum + lines(text), 0);
if (addonLines > MAX_ADDON_LINES) problems.push(`native/addon: ${addonLines} lines, more than ${MAX_ADDON_LINES}`);

for (const problem of problems) console.error(problem);
console.log(`${lib.length} files in lib/, ${native.length} in native/: ${problems.length} problems`);
process.exitCode = problems.length > 0 ? 1 : 0;
