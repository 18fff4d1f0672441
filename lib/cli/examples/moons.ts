// A classifier of two moons, trained as far as the inputs say. Layer cli. The outcome depends on the inputs alone; what
// was trained last is kept, so that the next request need not begin again.
import {
  binaryCrossEntropyWithLogits,
  Generator,
  keep,
  nn,
  noGrad,
  optim,
  rand,
  randn,
  scope,
  type Tensor,
  tensor,
} from '../../index.ts';
import { trace } from '../../viz/trace.ts';
import type { Training } from '../protocol.ts';
import { checkInputs, choice, type Example, number, type Values, whole } from './example.ts';

const POINTS = 200;
const GRID = 48;
const [LEFT, RIGHT, BOTTOM, TOP] = [-1.6, 2.6, -1.2, 1.7];

const inputs = {
  activation: choice('Activation', 'tanh', 'relu', 'sigmoid'),
  hidden: whole('Hidden units', 12, 1, 64),
  rate: number('Learning rate', 0.03, 0, 10),
  noise: number('Noise of the points', 0.12, 0, 1),
  seed: whole('Seed', 0, 0, 2 ** 31),
  iterations: whole('Iterations', 0, 0, 2000),
};
type Settings = Values<typeof inputs>;

const ACTIVATIONS: Readonly<Record<string, new () => nn.Module>> = {
  tanh: nn.Tanh,
  relu: nn.ReLU,
  sigmoid: nn.Sigmoid,
};

/** Half of the points on each of two arcs, which reach into each other. */
function moons(noise: number, generator: Generator): { x: Tensor; y: Tensor } {
  const half = POINTS / 2;
  const angles = rand([POINTS], { generator }).mul(Math.PI).toTypedArray();
  const arcs = Array.from(angles as Float32Array, (angle, i) =>
    i < half ? [Math.cos(angle), Math.sin(angle)] : [1 - Math.cos(angle), 0.5 - Math.sin(angle)],
  );
  const x = tensor(arcs).add(randn([POINTS, 2], { generator }).mul(noise));
  return { x, y: tensor(Array.from({ length: POINTS }, (_, i) => [i < half ? 0 : 1])) };
}

class Trainer {
  readonly key: string;
  readonly losses: number[] = [];
  readonly net: nn.Sequential;
  readonly #optimizer: optim.Adam;
  readonly #x: Tensor;
  readonly #y: Tensor;

  constructor(key: string, { activation, hidden, rate, noise, seed }: Settings) {
    this.key = key;
    const generator = new Generator(seed);
    const { x, y } = moons(noise, generator);
    [this.#x, this.#y] = [keep(x), keep(y)];
    const act = () => new ACTIVATIONS[activation]!();
    this.net = new nn.Sequential(
      new nn.Linear(2, hidden),
      act(),
      new nn.Linear(hidden, hidden),
      act(),
      new nn.Linear(hidden, 1),
    );
    for (const [name, parameter] of this.net.namedParameters()) {
      keep(parameter);
      if (name.endsWith('weight')) nn.init.kaimingUniform_(parameter, { a: Math.sqrt(3), generator });
      else nn.init.zeros_(parameter);
    }
    this.#optimizer = new optim.Adam(this.net.parameters(), { lr: rate });
  }

  readonly loss = (): Tensor => binaryCrossEntropyWithLogits(this.net.call(this.#x), this.#y);

  get names(): Record<string, Tensor> {
    return { points: this.#x, labels: this.#y };
  }

  trainTo(iterations: number): void {
    while (this.losses.length < iterations) {
      scope(() => {
        this.#optimizer.zeroGrad();
        const loss = this.loss();
        this.losses.push(loss.item());
        loss.backward();
        this.#optimizer.step();
      });
    }
  }

  state(): Training {
    const [points, labels] = [this.#x.toTypedArray(), this.#y.toTypedArray()] as [Float32Array, Float32Array];
    const at = Array.from(labels, (label, i) => ({
      x: points[2 * i]!,
      y: points[2 * i + 1]!,
      label: label === 1 ? (1 as const) : (0 as const),
    }));
    return noGrad(() => {
      const right = this.net.call(this.#x).gt(0).eq(this.#y.gt(0.5));
      return {
        iteration: this.losses.length,
        losses: [...this.losses, this.loss().item()],
        accuracy: right.to('float32').mean().item(),
        points: at,
        boundary: this.#boundary(),
      };
    });
  }

  #boundary(): Training['boundary'] {
    const step = (least: number, most: number, i: number): number => least + ((most - least) * (i + 0.5)) / GRID;
    const cells = Array.from({ length: GRID * GRID }, (_, i) => [
      step(LEFT, RIGHT, i % GRID),
      step(BOTTOM, TOP, Math.floor(i / GRID)),
    ]);
    const values = Array.from(this.net.call(tensor(cells)).sigmoid().toTypedArray() as Float32Array, (p) =>
      // JSON has no NaN, which a rate that is too high leads to.
      Number.isNaN(p) ? 0.5 : Number(p.toFixed(3)),
    );
    return { columns: GRID, rows: GRID, x: [LEFT, RIGHT], y: [BOTTOM, TOP], values };
  }
}

let last: Trainer | null = null;

function trainerFor({ iterations, ...settings }: Settings): Trainer {
  const key = JSON.stringify(settings);
  if (last?.key !== key || last.losses.length > iterations) last = new Trainer(key, { iterations, ...settings });
  last.trainTo(iterations);
  return last;
}

export const twoMoons: Example = {
  id: 'two-moons',
  title: 'Two moons, training',
  text: 'A small classifier learns while you watch. The trace is of the loss over all points, with the weights as they are now.',
  inputs,
  trains: 'iterations',
  run: (given) => {
    const settings = checkInputs('two-moons', inputs, given);
    return scope(() => {
      const trainer = trainerFor(settings);
      return { trace: trace(trainer.loss, { names: trainer.names }), training: trainer.state() };
    });
  },
};
