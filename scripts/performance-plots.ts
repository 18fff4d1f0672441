// The plots of docs/performance.md, from what the benchmarks measured. Knows no file.

import { parse, View } from 'vega';
import { compile, type TopLevelSpec } from 'vega-lite';
import type { Cell } from '../bench/gemm.ts';
import type { KernelCell } from '../bench/kernels.ts';
import { speedup, type TrainingCell } from '../bench/training.ts';

const render = async (spec: TopLevelSpec): Promise<string> =>
  `${await new View(parse(compile(spec).spec), { renderer: 'none' }).toSVG()}\n`;

const COLOURS = ['#d1495b', '#8d99ae'];
const STYLE = { background: 'white', config: { view: { stroke: '#ddd' }, axis: { labelLimit: 320 } } } as const;

/** What part of the peak the best rival reaches of each shape, and what part we do. */
export function gemmPlot(cells: readonly Cell[]): Promise<string> {
  const values = cells.flatMap(({ shape, layout, threads, ours, rivals, limit }) => {
    const common = { shape, panel: `${layout}, ${threads} thread${threads > 1 ? 's' : ''}` };
    const best = rivals[0] ? [{ ...common, who: 'best rival', share: (100 * rivals[0].rate.best) / limit }] : [];
    return [{ ...common, who: 'chainrule', share: (100 * ours.best) / limit }, ...best];
  });
  return render({
    ...STYLE,
    data: { values },
    facet: { field: 'panel', title: null },
    columns: 3,
    spec: {
      width: 190,
      height: { step: 13 },
      mark: { type: 'point', filled: true, size: 45, opacity: 0.9 },
      encoding: {
        y: { field: 'shape', type: 'nominal', sort: null, title: null, axis: { grid: true } },
        x: { field: 'share', type: 'quantitative', title: '% of the multiply-add peak', scale: { domain: [0, 100] } },
        color: { field: 'who', title: null, scale: { domain: ['chainrule', 'best rival'], range: COLOURS } },
      },
    },
  });
}

export interface Ratio {
  name: string;
  threads: number;
  ratio: number;
  /** Where a case is done in more than one way. */
  way?: string;
}

/** How many times as fast as the other side, case by case, on an axis where twice and half are as far. */
export function ratioPlot(values: readonly Ratio[]): Promise<string> {
  const ways = values.some(({ way }) => way !== undefined);
  return render({
    ...STYLE,
    data: { values: [...values] },
    width: 420,
    height: { step: 13 },
    layer: [
      {
        mark: { type: 'point', filled: true, size: 45 },
        encoding: {
          y: { field: 'name', type: 'nominal', sort: null, title: null, axis: { grid: true, labelLimit: 300 } },
          x: {
            field: 'ratio',
            type: 'quantitative',
            scale: { type: 'log', base: 2 },
            title: 'times as fast as PyTorch',
          },
          color: { field: 'threads', type: 'nominal', title: 'threads', scale: { range: ['#d1495b', '#30638e'] } },
          ...(ways && {
            shape: { field: 'way', type: 'nominal', sort: null, title: null, scale: { range: ['circle', 'diamond'] } },
          }),
        },
      },
      {
        data: { values: [{ ratio: 1 }] },
        mark: { type: 'rule', color: '#333' },
        encoding: { x: { field: 'ratio', type: 'quantitative' } },
      },
    ],
  } as TopLevelSpec);
}

export const kernelRatios = (cells: readonly KernelCell[]): Ratio[] =>
  cells.flatMap(({ op, sizes, threads, ours, theirs }) =>
    theirs ? [{ name: `${op} ${sizes}`, threads, ratio: theirs.best / ours.best }] : [],
  );

export const trainingRatios = (cells: readonly TrainingCell[]): Ratio[] =>
  cells.flatMap(({ name, threads, ours, compiled, theirs }) =>
    Object.entries({ eager: ours, compiled }).flatMap(([way, own]) => {
      const ratio = speedup(own, theirs);
      return ratio === undefined ? [] : [{ name, threads, way, ratio }];
    }),
  );
