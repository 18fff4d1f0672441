// The charts, all drawn by uPlot: memory and gradients over the steps, losses, histograms.
import { useEffect, useRef } from 'preact/hooks';
import uPlot from 'uplot';
import type { TraceValues } from '../../lib/viz/trace-format.ts';
import { bytes, short } from './format.ts';
import { normOf, type Walk } from './walk.ts';

type Data = [xs: number[], ys: (number | null)[]];

interface ChartProps {
  readonly label: string;
  readonly data: Data;
  readonly height: number;
  /** Made anew when its parts change; must not depend on the data. */
  readonly options: (theme: Theme) => Omit<uPlot.Options, 'width' | 'height'>;
  /** A place on the x axis to be marked. */
  readonly mark?: number;
  readonly onPick?: (x: number) => void;
}

interface Theme {
  readonly accent: string;
  readonly soft: string;
  readonly line: string;
  readonly fill: string;
}

function theme(): Theme {
  const style = getComputedStyle(document.documentElement);
  const of = (name: string): string => style.getPropertyValue(name).trim();
  return { accent: of('--accent'), soft: of('--soft'), line: of('--line'), fill: of('--accent-faint') };
}

const NO_EXTRAS = { legend: { show: false }, padding: [8, 14, 0, 0] as uPlot.Padding };

function Chart({ label, data, height, options, mark, onPick }: ChartProps) {
  const host = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const now = useRef({ data, mark, onPick });
  now.current = { data, mark, onPick };

  useEffect(() => {
    const element = host.current!;
    const make = (): void => {
      plot.current?.destroy();
      const colors = theme();
      const chart = new uPlot(
        { ...options(colors), width: element.clientWidth, height, plugins: [marker(colors, () => now.current.mark)] },
        now.current.data,
        element,
      );
      chart.over.addEventListener('click', () => {
        const { idx } = chart.cursor;
        if (idx != null) now.current.onPick?.(chart.data[0][idx]!);
      });
      plot.current = chart;
    };
    make();
    const resized = new ResizeObserver(() => plot.current?.setSize({ width: element.clientWidth, height }));
    resized.observe(element);
    const dark = matchMedia('(prefers-color-scheme: dark)');
    dark.addEventListener('change', make);
    return () => {
      resized.disconnect();
      dark.removeEventListener('change', make);
      plot.current?.destroy();
      plot.current = null;
    };
  }, [options, height]);
  useEffect(() => {
    if (plot.current?.data !== data) plot.current?.setData(data);
  }, [data]);
  useEffect(() => plot.current?.redraw(false), [mark]);
  return <div class="chart" ref={host} role="img" aria-label={label} />;
}

/** A line at the current step. */
const marker = ({ accent }: Theme, at: () => number | undefined): uPlot.Plugin => ({
  hooks: {
    draw: ({ ctx, bbox, valToPos }) => {
      const x = at();
      if (x === undefined) return;
      const left = Math.round(valToPos(x, 'x', true));
      ctx.fillStyle = accent;
      ctx.fillRect(left - devicePixelRatio, bbox.top, 2 * devicePixelRatio, bbox.height);
    },
  },
});

const axis = ({ soft, line }: Theme, more: uPlot.Axis): uPlot.Axis => ({
  stroke: soft,
  grid: { stroke: line, width: 1 },
  ticks: { show: false },
  font: '11px ui-monospace, monospace',
  ...more,
});
const steps = (colors: Theme): uPlot.Axis =>
  axis(colors, {
    size: 24,
    grid: { show: false },
    incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000],
  });

const lane =
  (
    scale: uPlot.Scale,
    values: (value: number) => string,
    incrs: number[] | undefined,
    paths?: uPlot.Series.PathBuilder,
  ) =>
  (colors: Theme): Omit<uPlot.Options, 'width' | 'height'> => ({
    ...NO_EXTRAS,
    cursor: { y: false, points: { show: false }, drag: { x: false } },
    scales: { x: { time: false, range: (_, least, most) => [least, Math.max(most, 5)] }, y: scale },
    axes: [
      steps(colors),
      axis(colors, {
        size: 60,
        ...(incrs && { incrs }),
        space: 28,
        values: (_, ticks) => ticks.map((tick) => (tick === null ? '' : values(tick))),
      }),
    ],
    series: [
      {},
      { stroke: colors.accent, width: 1.5, points: { show: false }, ...(paths && { paths, fill: colors.fill }) },
    ],
  });

const memoryLane = lane(
  { range: (_, __, most) => [0, Math.max(1, most * 1.1)] },
  bytes,
  Array.from({ length: 54 }, (_, i) => 2 ** i),
  uPlot.paths.stepped!({ align: 1 }),
);
const gradientLane = lane(
  { range: (_, least, most) => [Math.floor(least), Math.max(Math.floor(least) + 1, Math.ceil(most))] },
  (power) => `1e${power}`.replace('-', '−'),
  [1, 2, 5, 10, 20, 50, 100, 200, 500],
);
const lossLane = lane({ range: (_, __, most) => [0, Math.max(1e-3, most * 1.05)] }, short, undefined);
const histogram = (colors: Theme): Omit<uPlot.Options, 'width' | 'height'> => ({
  ...NO_EXTRAS,
  cursor: { show: false },
  padding: [4, 0, 0, 0],
  scales: { x: { time: false }, y: { range: (_, __, most) => [0, Math.max(1, most)] } },
  axes: [{ show: false }, { show: false }],
  series: [
    {},
    {
      stroke: colors.accent,
      fill: colors.fill,
      width: 1,
      points: { show: false },
      paths: uPlot.paths.bars!({ size: [0.9] }),
    },
  ],
});

interface LaneProps {
  readonly walk: Walk;
  readonly step: number;
  readonly onStep: (step: number) => void;
}

const numbered = (ys: (number | null)[], first = 0): Data => [ys.map((_, i) => first + i), ys];

/** Made once for each trace. */
const laneData = new WeakMap<Walk, { memory: Data; gradients: Data; most: number }>();
function dataOf(walk: Walk) {
  const known = laneData.get(walk);
  if (known !== undefined) return known;
  const { steps: all } = walk.trace;
  const held = all.map((step) => step.bytes);
  // A logarithm has no place for 0.
  const norms = all.map((step) => {
    const norm = normOf(step) ?? 0;
    return norm > 0 ? Math.log10(norm) : null;
  });
  const made = {
    memory: numbered(held, 1),
    gradients: numbered(norms, 1),
    most: held.reduce((a, b) => Math.max(a, b), 0),
  };
  laneData.set(walk, made);
  return made;
}

export function Lanes({ walk, step, onStep }: LaneProps) {
  const { memory, gradients, most } = dataOf(walk);
  const pass = { height: 96, mark: step + 1, onPick: (x: number) => onStep(x - 1) };
  const now = walk.trace.steps[step];
  const norm = now === undefined ? null : normOf(now);
  return (
    <div class="lanes">
      <figure>
        <figcaption>
          Saved bytes <output class="mono">{bytes(now?.bytes ?? 0)}</output>
          <span class="soft"> peak {bytes(most)}</span>
        </figcaption>
        <Chart {...pass} label="Memory lane: saved bytes over the steps" data={memory} options={memoryLane} />
      </figure>
      <figure>
        <figcaption>
          Norm of the gradient <output class="mono">{norm === null ? 'not yet' : short(norm)}</output>
        </figcaption>
        <Chart {...pass} label="Norm of the incoming gradient over the steps" data={gradients} options={gradientLane} />
      </figure>
    </div>
  );
}

export const Losses = ({ losses }: { losses: readonly (number | null)[] }) => (
  <Chart label="Loss over the iterations" height={120} data={numbered([...losses])} options={lossLane} />
);

const histogramData = new WeakMap<TraceValues, Data>();
export function Histogram({ values }: { values: TraceValues }) {
  let data = histogramData.get(values);
  if (data === undefined) histogramData.set(values, (data = numbered([...values.histogram])));
  return (
    <div class="histogram">
      <Chart
        label={`Histogram from ${short(values.min)} to ${short(values.max)}`}
        height={52}
        data={data}
        options={histogram}
      />
      <div class="ends mono soft">
        <span>{short(values.min)}</span>
        <span>{short(values.max)}</span>
      </div>
    </div>
  );
}
