// Writes docs/performance.md and its plots from what `npm run bench` left in out/bench. Run: `npm run docs:performance`.
// Parts that were not measured are left out.
import { mkdirSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { EagerCell } from '../bench/eager.ts';
import { type Cell, ratio, share, summary } from '../bench/gemm.ts';
import type { Result } from '../bench/javascript.ts';
import type { KernelCell } from '../bench/kernels.ts';
import type { Limit } from '../bench/limits.ts';
import { geometricMean } from '../bench/measure.ts';
import { load, type Machine } from '../bench/results.ts';
import { peakShare, speedup, type TrainingCell } from '../bench/training.ts';
import { gemmPlot, kernelRatios, ratioPlot, trainingRatios } from './performance-plots.ts';

const docs = (name: string): string => fileURLToPath(new URL(`../docs/${name}`, import.meta.url));

function table(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  return [line(header), line(header.map((_, i) => (i === 0 ? '---' : '---:'))), ...rows.map(line)].join('\n');
}

function image(name: string, alt: string, svg: string): string {
  mkdirSync(docs('images'), { recursive: true });
  writeFileSync(docs(`images/${name}.svg`), svg);
  return `![${alt}](images/${name}.svg)`;
}

const percent = (part: number): string => `${(100 * part).toFixed(0)} %`;
const micro = (seconds: number): string => (seconds * 1e6).toFixed(seconds < 1e-4 ? 2 : 0);
const times = (value: number | undefined): string => (value === undefined ? '-' : value.toFixed(2));

function limitsSection(): string[] {
  const found = load<{ limits: Limit[] }>('limits');
  if (!found) return [];
  const names = [...new Set(found.limits.map(({ name }) => name))];
  const of = (name: string, threads: number): Limit | undefined =>
    found.limits.find((limit) => limit.name === name && limit.threads === threads);
  const figure = (limit: Limit | undefined): string =>
    limit ? `${limit.best.toFixed(0)} (${limit.median.toFixed(0)})` : '-';
  const rows = names.map((name) => [name, of(name, 1)?.unit ?? '', figure(of(name, 1)), figure(of(name, 2))]);
  return [
    '## The limits\n\nBest, and median. `npm run bench limits`\n',
    table(['', 'unit', '1 thread', '2 threads'], rows),
  ];
}

async function gemmSection(): Promise<string[]> {
  const found = load<{ cells: Cell[]; rivals: { name: string; about: string }[] }>('gemm');
  if (!found) return [];
  const rows = found.cells.map((cell) => [
    `${cell.precision} ${cell.shape}`,
    cell.layout,
    String(cell.threads),
    cell.ours.best.toFixed(0),
    percent(share(cell)),
    cell.rivals[0] ? `${cell.rivals[0].name} ${cell.rivals[0].rate.best.toFixed(0)}` : '-',
    times(ratio(cell)),
  ]);
  const single = found.cells.filter(({ precision }) => precision === 'f32');
  return [
    '## Matrix products\n',
    'NT is `x @ W.T`, as a layer has it forward; TN gives the gradient of its weights. Every library computes in a ' +
      'process of its own, takes turns with the others, and is checked against float64. The ratio is to the best of ' +
      `them in the same layout. \`npm run bench gemm\`\n\nRivals: ${found.rivals.map(({ about }) => about).join('; ')}.\n`,
    ...summary(found.cells).map((line) => `- ${line}`),
    `\n${image('gemm', 'Matrix products in parts of the peak', await gemmPlot(single))}\n`,
    table(['(m,n,k)', 'layout', 'threads', 'GFLOP/s', 'of peak', 'best rival', 'ratio'], rows),
  ];
}

function kernelRows(cells: readonly KernelCell[]): string[][] {
  return cells.map(({ op, sizes, threads, bytes, ours, theirs, limit }) => [
    op,
    sizes,
    String(threads),
    micro(ours.best),
    (bytes / ours.best / 1e9).toFixed(1),
    percent(bytes / ours.best / 1e9 / limit),
    theirs ? micro(theirs.best) : '-',
    times(speedup(ours, theirs)),
  ]);
}

async function kernelSections(): Promise<string[]> {
  const parts = ['elementwise', 'reductions', 'optimizers'] as const;
  const titles = { elementwise: 'Elementwise ops', reductions: 'Reductions', optimizers: 'Optimizers' };
  const header = ['', 'sizes', 'threads', 'µs', 'GB/s', 'of a copy', 'PyTorch µs', 'ratio'];
  const lines: string[] = [];
  for (const part of parts) {
    const found = load<{ cells: KernelCell[] }>(part);
    if (!found) continue;
    lines.push(`\n## ${titles[part]}\n\n\`npm run bench ${part}\`\n`);
    const ratios = kernelRatios(found.cells);
    if (ratios.length > 0) {
      lines.push(`${image(part, `${titles[part]} beside PyTorch`, await ratioPlot(ratios))}\n`);
    }
    lines.push(table(header, kernelRows(found.cells)));
  }
  return lines;
}

async function trainingSection(): Promise<string[]> {
  const found = load<{ cells: TrainingCell[] }>('training');
  if (!found) return [];
  const rate = (timing: { best: number } | undefined): string =>
    timing ? (1 / timing.best).toFixed(timing.best > 0.01 ? 1 : 0) : '-';
  const rows = found.cells.map((cell) => {
    const { name, threads, ours, compiled, theirs } = cell;
    const share = compiled && peakShare(cell, compiled);
    return [
      name,
      String(threads),
      rate(ours),
      rate(compiled),
      times(speedup(compiled, ours)),
      share ? percent(share) : '-',
      rate(theirs),
      times(speedup(ours, theirs)),
      times(speedup(compiled, theirs)),
    ];
  });
  const ratios = trainingRatios(found.cells);
  const plot =
    ratios.length > 0 ? [`${image('training', 'Training steps beside PyTorch', await ratioPlot(ratios))}\n`] : [];
  return [
    '\n## Training steps\n',
    'Steps a second through the public API: a loop of zeroGrad, forward, loss, backward and optimizer step, as it stands ' +
      'and as one compiled function. The share of the peak is of the compiled step, and counts its matrix products only. ' +
      '`npm run bench training`\n',
    ...plot,
    table(
      [
        'layers, batch, activation, loss, optimizer',
        'threads',
        'eager',
        'compiled',
        'compiled / eager',
        'of peak',
        'PyTorch',
        'eager / PyTorch',
        'compiled / PyTorch',
      ],
      rows,
    ),
  ];
}

function eagerSection(): string[] {
  const found = load<{ cells: EagerCell[] }>('eager');
  if (!found) return [];
  const rows = found.cells.map(({ name, ours, theirs }) => [
    name,
    micro(ours.best),
    theirs ? micro(theirs.best) : '-',
    times(speedup(ours, theirs)),
  ]);
  const ratios = found.cells.flatMap(({ ours, theirs }) => speedup(ours, theirs) ?? []);
  const mean = ratios.length > 0 ? ` Geometric mean: ${geometricMean(ratios).toFixed(2)}.` : '';
  return [
    `\n## What an op costs that computes next to nothing\n\n\`npm run bench eager\`.${mean}\n`,
    table(['', 'µs', 'PyTorch µs', 'ratio'], rows),
  ];
}

function javascriptSection(): string[] {
  const found = load<{ products: Result[]; steps: Result[] }>('javascript');
  if (!found) return [];
  const tables = [found.products, found.steps].map((results) => {
    const names = [...new Set(results.flatMap(({ timings }) => Object.keys(timings)))];
    const rows = results.map(({ work, timings }) => [
      work,
      ...names.map((name) => (timings[name] ? micro(timings[name].median) : '-')),
    ]);
    return `${table(['µs, median', ...names], rows)}\n`;
  });
  return ['\n## Beside other JavaScript\n\nOne thread. `npm run bench javascript`\n', tables.join('\n')];
}

function introduction(machine: Machine): string {
  return `# Performance

Written by \`npm run docs:performance\` from what \`npm run bench\` measured; every figure can be had again.

${machine.processor}, ${machine.cores} cores, ${machine.isa}, Node ${machine.node}, chainrule ${machine.version}, ${machine.date}.
Ratios say how many times as fast we are, best sample against best sample within one run; below 1 the other side is
faster. Absolute figures drift with the machine and its neighbours, so compare within a run only. A sample is at least
3 ms of calls; those who are compared take turns, and whoever is not measured is stopped. On a shared machine run it as
\`setsid -w sh -c 'echo -20 > /proc/self/autogroup; nice -n -20 npm run bench'\`: where Linux groups processes by session,
\`nice\` alone has no effect on those of other sessions.
`;
}

const first = ['gemm', 'elementwise', 'training', 'limits', 'eager'].map((part) => load(part)).find(Boolean);
if (!first) throw new Error('out/bench has no results: run `npm run bench` first');
const pytorch = load<{ setting: Record<string, string> }>('pytorch')?.setting;
const setting = pytorch && Object.entries(pytorch).map(([name, value]) => `\`${name}=${value}\``);
const sections = [
  introduction(first.machine),
  ...limitsSection(),
  '',
  ...(await gemmSection()),
  ...(setting
    ? [`\nPyTorch ran at the fastest of the settings that were tried: ${setting.join(' ') || 'its own'}.`]
    : []),
  ...(await kernelSections()),
  ...(await trainingSection()),
  ...eagerSection(),
  ...javascriptSection(),
];
writeFileSync(docs('performance.md'), `${sections.join('\n').trimEnd()}\n`);
