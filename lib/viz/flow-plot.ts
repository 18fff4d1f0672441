// The gradient flow of a model as a plot. Layer viz; knows no tensor.
import type { TopLevelSpec } from 'vega-lite';
import { ArgumentError } from '../errors.ts';
import type { GradientFlow } from '../nn/flow.ts';
import { describe } from '../shape.ts';
import { decades } from '../text.ts';
import { peer } from './peer.ts';

/**
 * What `gradientFlow` returned as SVG: the 2-norms of each layer's gradient and of its weights' gradient, layers from top
 * to bottom, on a logarithmic scale. A norm that has no place there, such as 0 or NaN, stands as text at the left.
 * Drawn by `vega-lite` and `vega`, which have to be installed beside chainrule.
 * @throws DependencyError when they are not
 */
export async function flowToSvg(flow: GradientFlow): Promise<string> {
  if (!Array.isArray(flow) || flow.some((layer) => typeof layer?.name !== 'string')) {
    throw new ArgumentError(`flowToSvg: got ${describe(flow)}. Expected what gradientFlow() returns.`);
  }
  const [{ parse, View }, { compile }] = await peer('flowToSvg', 'vega vega-lite', () =>
    Promise.all([import('vega'), import('vega-lite')]),
  );
  return new View(parse(compile(plot(flow)).spec), { renderer: 'none' }).toSVG();
}

const SERIES = ['|gradient|', '|weight grad|'] as const;
const COLOURS = ['#d1495b', '#30638e'];
/** Powers of ten that have a label. */
const LABELS = 10;

const power = (exponent: number): number => Math.min(Math.max(10 ** exponent, Number.MIN_VALUE), Number.MAX_VALUE);

function plot(flow: GradientFlow): TopLevelSpec {
  const rows = flow.map(({ name, type }) => (name === type ? name : `${name} ${type}`));
  const norms = flow.flatMap(({ gradient, weightGradNorm }, i) => [
    { row: rows[i]!, of: SERIES[0], norm: gradient?.norm ?? null },
    ...(weightGradNorm === null ? [] : [{ row: rows[i]!, of: SERIES[1], norm: weightGradNorm }]),
  ]);
  const onScale = ({ norm }: { norm: number | null }): boolean => norm !== null && norm > 0 && Number.isFinite(norm);
  const [low, high] = decades(norms.map(({ norm }) => norm ?? 0)) ?? [0, 1];
  const step = Math.ceil((high - low) / LABELS);
  const ticks = Array.from({ length: Math.floor((high - low) / step) + 1 }, (_, i) => power(low + i * step));
  const color = { field: 'of', type: 'nominal', title: null, scale: { domain: [...SERIES], range: COLOURS } } as const;
  const y = { field: 'row', type: 'nominal', sort: rows, title: null, axis: { grid: true } } as const;
  return {
    background: 'white',
    config: { view: { stroke: '#ddd' }, axis: { labelLimit: 320 } },
    width: 420,
    height: { step: 16 },
    layer: [
      {
        data: { values: norms.filter(onScale) },
        mark: { type: 'point', filled: true, size: 50, opacity: 1 },
        encoding: {
          y,
          x: {
            field: 'norm',
            type: 'quantitative',
            scale: { type: 'log', domain: [power(low), power(high)] },
            axis: { title: '2-norm', format: '.0e', values: ticks },
          },
          color,
        },
      },
      {
        data: {
          values: norms
            .filter((value) => !onScale(value))
            .map((value) => ({ ...value, text: String(value.norm ?? 'none') })),
        },
        mark: { type: 'text', align: 'left' },
        encoding: { y, x: { value: 4 }, text: { field: 'text' }, color },
      },
    ],
  };
}
