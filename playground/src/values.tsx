// What a tensor holds: a number, a table, or statistics with a histogram.
import type { TraceValues } from '../../lib/viz/trace-format.ts';
import { Histogram } from './charts.tsx';
import { number } from './format.ts';
import { countOf, MARKS, markOf } from './walk.ts';

interface Props {
  /** What it is, for the test and the screen reader. */
  readonly name: string;
  readonly values: TraceValues;
  readonly shape: readonly number[];
}

export function Values({ name, values, shape }: Props) {
  const mark = markOf(values);
  return (
    <div class="values" data-values={name}>
      {mark !== null && (
        <p class={`badge ${mark}`}>
          {mark === 'zero' ? 'All zero' : `${MARKS[mark]}: ${values.nan + values.infinite} of ${countOf(values)}`}
        </p>
      )}
      <Content name={name} values={values} shape={shape} />
    </div>
  );
}

function Content({ name, values, shape }: Props) {
  const { data } = values;
  if (data === null) return <Statistics values={values} />;
  if (data.length === 0) return <p class="soft">empty</p>;
  if (data.length === 1) return <p class="scalar mono">{number(data[0]!)}</p>;
  const columns = shape.at(-1) || data.length;
  const rows = Array.from({ length: Math.ceil(data.length / columns) }, (_, i) =>
    data.slice(i * columns, (i + 1) * columns),
  );
  return (
    // Scrolls, so it has to be reachable by keyboard.
    // biome-ignore lint/a11y/noNoninteractiveTabindex: a region that scrolls
    <section class="scroll" tabIndex={0} aria-label={`${name}, all values`}>
      <table class="matrix mono">
        <tbody>
          {rows.map((row) => (
            <tr>
              {row.map((value) => (
                <td class={value === 0 ? 'zero' : typeof value === 'string' ? 'nan' : ''}>{number(value)}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

function Statistics({ values }: { values: TraceValues }) {
  const rows: [string, string][] = [
    ['norm', number(values.norm)],
    ['mean', number(values.mean)],
    ['std', number(values.std)],
    ['zeros', String(values.zeros)],
  ];
  return (
    <div class="statistics">
      <dl class="pairs">
        {rows.map(([name, value]) => (
          <div>
            <dt>{name}</dt>
            <dd class="mono">{value}</dd>
          </div>
        ))}
      </dl>
      {values.histogram.length > 0 && <Histogram values={values} />}
    </div>
  );
}
