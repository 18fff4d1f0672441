// Bench layer: the sampler and the tables. A sample is at least 3 ms of calls, so that the clock does not matter and
// the garbage collector's work falls into samples; the warm-up lasts until the code is compiled.

/** Seconds per call. The mean holds every collection, the best sample maybe none. */
export interface Timing {
  best: number;
  median: number;
  mean: number;
}

export interface Sampling {
  /** Seconds of calls before the first sample. */
  warmup?: number;
  /** Seconds of samples. */
  seconds?: number;
}

const SAMPLE = 0.003;

const now = (): number => performance.now() / 1000;

/** Calls fn for about that long; how many calls that took. */
function callFor(seconds: number, fn: () => void): number {
  const end = now() + seconds;
  let calls = 0;
  do {
    fn();
    calls++;
  } while (now() < end);
  return calls;
}

export function measure(fn: () => void, { warmup = 0.2, seconds = 0.5 }: Sampling = {}): Timing {
  callFor(warmup, fn);
  const calls = callFor(SAMPLE, fn);
  const samples: number[] = [];
  const end = now() + seconds;
  do {
    const start = now();
    for (let i = 0; i < calls; i++) fn();
    samples.push((now() - start) / calls);
  } while (now() < end || samples.length < 3);
  return summarize(samples);
}

/** Of what may answer later; what answers at once is not waited for. */
export async function measureAsync(
  fn: () => void | Promise<void>,
  { warmup = 0.2, seconds = 0.5 }: Sampling = {},
): Promise<Timing> {
  const first = fn();
  if (!(first instanceof Promise)) return measure(fn as () => void, { warmup, seconds });
  await first;
  const callFor = async (atLeast: number): Promise<number> => {
    const end = now() + atLeast;
    let calls = 0;
    do {
      await fn();
      calls++;
    } while (now() < end);
    return calls;
  };
  await callFor(warmup);
  const calls = await callFor(SAMPLE);
  const samples: number[] = [];
  const end = now() + seconds;
  do {
    const start = now();
    for (let i = 0; i < calls; i++) await fn();
    samples.push((now() - start) / calls);
  } while (now() < end || samples.length < 3);
  return summarize(samples);
}

function summarize(samples: readonly number[]): Timing {
  const sorted = [...samples].sort((a, b) => a - b);
  const mean = sorted.reduce((sum, value) => sum + value, 0) / sorted.length;
  return { best: sorted[0]!, median: sorted[sorted.length >> 1]!, mean };
}

/** The timing of several rounds as one. */
export function merge(rounds: readonly Timing[]): Timing {
  const middle = (values: number[]): number => values.sort((a, b) => a - b)[values.length >> 1]!;
  return {
    best: Math.min(...rounds.map(({ best }) => best)),
    median: middle(rounds.map(({ median }) => median)),
    mean: middle(rounds.map(({ mean }) => mean)),
  };
}

export const scaled = ({ best, median, mean }: Timing, factor: number): Timing => ({
  best: best * factor,
  median: median * factor,
  mean: mean * factor,
});

/** Prints rows under a header: the first column to the left, the others to the right. */
export function printTable(header: readonly string[], rows: readonly (readonly string[])[]): void {
  const width = header.map((title, column) =>
    Math.max(...[header, ...rows].map((row) => row[column]!.length), title.length),
  );
  for (const row of [header, ...rows]) {
    console.log(row.map((cell, i) => (i === 0 ? cell.padEnd(width[i]!) : cell.padStart(width[i]!))).join('  '));
  }
  console.log();
}

export const geometricMean = (values: readonly number[]): number =>
  Math.exp(values.reduce((sum, value) => sum + Math.log(value), 0) / values.length);
