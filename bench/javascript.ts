// Bench layer: what else there is in JavaScript: products and training steps on one thread, each library in turn with
// ours, in this process. `npm run bench:rivals -- --install` gets them. Run: `npm run bench javascript`.
import { nn, optim, setNumThreads, tensor } from '../lib/index.ts';
import { measureAsync, merge, printTable, type Sampling, type Timing } from './measure.ts';
import type { Options } from './options.ts';
import { save } from './results.ts';
import { jax } from './rivals/jax.ts';
import { loops } from './rivals/loops.ts';
import { onnx } from './rivals/onnx.ts';
import type { Multiplication, Rival, Sizes, Trainer, Training } from './rivals/rival.ts';
import { tfjs } from './rivals/tfjs.ts';

const PRODUCTS: readonly Sizes[] = [
  { batch: 1, m: 64, n: 64, k: 64 },
  { batch: 1, m: 256, n: 256, k: 256 },
  { batch: 1, m: 128, n: 512, k: 784 },
  { batch: 1, m: 512, n: 512, k: 512 },
  { batch: 64, m: 64, n: 64, k: 64 },
  { batch: 1, m: 1024, n: 1024, k: 1024 },
];
/** Layers, batch, loss. */
const STEPS = [
  { sizes: [4, 16, 1], batch: 32, loss: 'mse' },
  { sizes: [784, 128, 10], batch: 32, loss: 'ce' },
  { sizes: [784, 512, 256, 10], batch: 128, loss: 'ce' },
] as const;
const ROUNDS = 3;

const random = (count: number, scale = 1): Float32Array =>
  Float32Array.from({ length: count }, () => (2 * Math.random() - 1) * scale);

const ours: Rival = {
  name: 'chainrule',
  largest: Number.POSITIVE_INFINITY,
  multiply: ({ batch, m, n, k }, a, b) => {
    const x = tensor(a).reshape(batch > 1 ? [batch, m, k] : [m, k]);
    const y = tensor(b).reshape(batch > 1 ? [batch, k, n] : [k, n]);
    return { run: () => x.matmul(y).dispose(), result: async () => x.matmul(y).toTypedArray() as Float32Array };
  },
  train: async ({ sizes, batch, loss, rate, x, target, weights }) => {
    const layers = weights.map((values, i) => {
      const layer = new nn.Linear(sizes[i]!, sizes[i + 1]!);
      const state = tensor(values)
        .reshape([sizes[i]!, sizes[i + 1]!])
        .T.contiguous();
      layer.loadStateDict({ weight: state, bias: tensor(new Float32Array(sizes[i + 1]!)) });
      return layer;
    });
    const model = new nn.Sequential(...layers.flatMap((layer) => [layer, new nn.ReLU()]).slice(0, -1));
    const optimizer = new optim.SGD(model.parameters(), { lr: rate });
    const input = tensor(x).reshape([batch, sizes[0]!]);
    const rows = tensor(target).reshape([batch, sizes.at(-1)!]);
    const criterion = loss === 'ce' ? new nn.CrossEntropyLoss() : new nn.MSELoss();
    const wanted = loss === 'ce' ? rows.argmax(1) : rows;
    return {
      run: () => {
        optimizer.zeroGrad();
        criterion.call(model.call(input), wanted).backward();
        optimizer.step();
      },
      loss: () => criterion.call(model.call(input), wanted).item() as number,
    };
  },
};

/** The largest error of 64 entries, against float64, in parts of the sum of magnitudes. */
function worst({ batch, m, n, k }: Sizes, a: Float32Array, b: Float32Array, c: ArrayLike<number>): number {
  const pick = (size: number): number => Math.floor(Math.random() * size);
  const errors = Array.from({ length: 64 }, () => {
    const [entry, i, j] = [pick(batch), pick(m), pick(n)];
    let [sum, magnitude] = [0, 0];
    for (let q = 0; q < k; q++) {
      const term = a[(entry * m + i) * k + q]! * b[(entry * k + q) * n + j]!;
      sum += term;
      magnitude += Math.abs(term);
    }
    return Math.abs(c[(entry * m + i) * n + j]! - sum) / magnitude;
  });
  return errors.some(Number.isNaN) ? Number.POSITIVE_INFINITY : Math.max(...errors);
}

function trainingOf({ sizes, batch, loss }: (typeof STEPS)[number]): Training {
  const outputs = sizes.at(-1)!;
  const target = loss === 'mse' ? random(batch * outputs) : new Float32Array(batch * outputs);
  if (loss === 'ce') {
    for (let row = 0; row < batch; row++) target[row * outputs + Math.floor(Math.random() * outputs)] = 1;
  }
  const weights = sizes.slice(1).map((to, i) => random(sizes[i]! * to, Math.sqrt(3 / sizes[i]!)));
  return { sizes, batch, loss, rate: 0.05, x: random(batch * sizes[0]!), target, weights };
}

type Runner = { rival: Rival; run(): void | Promise<void> };

/** Rounds in which each has its turn; the timing of each, by name. */
async function inTurns(runners: readonly Runner[], sampling: Sampling): Promise<Map<string, Timing>> {
  const rounds = new Map(runners.map(({ rival }) => [rival.name, [] as Timing[]]));
  for (let round = 0; round < ROUNDS; round++) {
    for (const { rival, run } of runners) {
      await rival.ready?.();
      rounds.get(rival.name)!.push(await measureAsync(run, sampling));
    }
  }
  return new Map([...rounds].map(([name, timings]) => [name, merge(timings)]));
}

export interface Result {
  work: string;
  timings: Record<string, Timing>;
}

async function products(rivals: readonly Rival[], options: Options, sampling: Sampling): Promise<Result[]> {
  const results: Result[] = [];
  for (const sizes of PRODUCTS) {
    const { batch, m, n, k } = sizes;
    const work = `${batch > 1 ? `${batch} × ` : ''}(${m},${n},${k})`;
    if (!options.matches('product', work)) continue;
    const [a, b] = [random(batch * m * k), random(batch * k * n)];
    const runners: Runner[] = [];
    for (const rival of rivals) {
      if (!rival.multiply || batch * m * n * k > rival.largest) continue;
      await rival.ready?.();
      const product: Multiplication = await rival.multiply(sizes, a, b);
      const error = worst(sizes, a, b, await product.result());
      if (error > 1e-5) console.log(`${rival.name} is wrong by ${error}: ${work}`);
      else runners.push({ rival, run: product.run });
    }
    results.push({ work, timings: Object.fromEntries(await inTurns(runners, sampling)) });
  }
  return results;
}

async function steps(rivals: readonly Rival[], options: Options, sampling: Sampling): Promise<Result[]> {
  const results: Result[] = [];
  for (const step of STEPS) {
    const work = `${step.sizes.join('-')} ${step.batch} relu ${step.loss} sgd`;
    if (!options.matches('step', work)) continue;
    const training = trainingOf(step);
    const runners: Runner[] = [];
    let expected: number | undefined;
    for (const rival of rivals) {
      if (!rival.train) continue;
      await rival.ready?.();
      const trainer: Trainer = await rival.train(training);
      for (let i = 0; i < 5; i++) await trainer.run();
      const loss = await trainer.loss();
      expected ??= loss;
      if (!(Math.abs(loss - expected) < 1e-4 * Math.abs(expected))) {
        console.log(`${rival.name} is at a loss of ${loss} after 5 steps, not ${expected}: ${work}`);
      } else runners.push({ rival, run: trainer.run });
    }
    results.push({ work, timings: Object.fromEntries(await inTurns(runners, sampling)) });
  }
  return results;
}

function print(title: string, rivals: readonly Rival[], results: readonly Result[]): void {
  const names = rivals.map(({ name }) => name).filter((name) => results.some(({ timings }) => name in timings));
  const rows = results.map(({ work, timings }) => [
    work,
    ...names.flatMap((name) => {
      const timing = timings[name];
      if (!timing) return name === ours.name ? ['-'] : ['-', '-'];
      const figure = (timing.median * 1e6).toPrecision(4);
      return name === ours.name ? [figure] : [figure, (timing.median / timings[ours.name]!.median).toPrecision(3)];
    }),
  ]);
  if (rows.length > 0)
    printTable([title, ...names.flatMap((name) => (name === ours.name ? [name] : [name, 'ratio']))], rows);
}

export async function run(options: Options): Promise<void> {
  setNumThreads(1);
  const found = [...loops(), await tfjs('cpu'), await tfjs('wasm'), await jax(), await onnx()];
  if (found.includes(undefined)) console.log('some are missing; to have them: npm run bench:rivals -- --install\n');
  const rivals = [ours, ...found.filter((rival) => rival !== undefined && options.rival(rival.name))] as Rival[];
  const sampling: Sampling = { warmup: 0.15, seconds: options.seconds ?? 0.15 };
  const multiplied = await products(rivals, options, sampling);
  print('µs a product, median', rivals, multiplied);
  const trained = await steps(rivals, options, sampling);
  print('µs a step, median', rivals, trained);
  save('javascript', { products: multiplied, steps: trained });
}
