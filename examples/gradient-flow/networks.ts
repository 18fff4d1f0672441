// Deep networks, and how the gradient that leaves their input compares with the one that enters their output.
import {
  Generator,
  type GradientFlow,
  grad,
  gradientFlow,
  nn,
  noGrad,
  randn,
  scope,
  type Tensor,
} from '../../lib/index.ts';
import { median } from './chains.ts';

export const DEPTH = 15;
export const WIDTH = 256;
export const BATCH = 32;

export interface Recipe {
  readonly title: string;
  readonly activation: () => nn.Module;
  readonly init: (weight: Tensor, generator: Generator) => void;
  /** x + f(x) instead of f(x). */
  readonly residual?: boolean;
  /** What normalises the input of each layer. */
  readonly norm?: () => nn.Module;
}

const xavier: Recipe['init'] = (weight, generator) => void nn.init.xavierNormal_(weight, { generator });
const he =
  (scale = 1): Recipe['init'] =>
  (weight, generator) =>
    noGrad(() => void nn.init.kaimingNormal_(weight, { nonlinearity: 'relu', generator }).mul_(scale));
const relu = (): nn.Module => new nn.ReLU();

export const RECIPES = {
  sigmoid: { title: 'sigmoid, Xavier', activation: () => new nn.Sigmoid(), init: xavier },
  tanh: { title: 'tanh, Xavier', activation: () => new nn.Tanh(), init: xavier },
  reluSmall: { title: 'ReLU, variance 1/n', activation: relu, init: he(Math.SQRT1_2) },
  reluHe: { title: 'ReLU, He', activation: relu, init: he() },
  reluLarge: { title: 'ReLU, 2 x He', activation: relu, init: he(2) },
  residual: { title: 'ReLU, He, residual', activation: relu, init: he(), residual: true },
  layerNorm: {
    title: '... and LayerNorm',
    activation: relu,
    init: he(),
    residual: true,
    norm: () => new nn.LayerNorm(WIDTH),
  },
  batchNorm: {
    title: '... or BatchNorm',
    activation: relu,
    init: he(),
    residual: true,
    norm: () => new nn.BatchNorm1d(WIDTH),
  },
} satisfies Record<string, Recipe>;

/** One layer: act(Wx), with or without a norm before it and x added to it. */
class Layer extends nn.Module {
  readonly norm: nn.Module | null;
  readonly linear: nn.Linear;
  readonly activation: nn.Module;
  readonly residual: boolean;

  constructor({ activation, init, residual = false, norm }: Recipe, generator: Generator) {
    super();
    this.norm = norm?.() ?? null;
    this.linear = new nn.Linear(WIDTH, WIDTH, { bias: false });
    init(this.linear.weight, generator);
    this.activation = activation();
    this.residual = residual;
  }

  override forward(x: Tensor): Tensor {
    const y = this.activation.call(this.linear.call(this.norm?.call(x) ?? x));
    return this.residual ? x.add(y) : y;
  }
}

/** A network, an input, and the direction from which the gradient comes, as that of a loss would. */
function draw(recipe: Recipe, seed: number, depth: number) {
  const generator = new Generator(seed);
  const layers = Array.from({ length: depth }, () => new Layer(recipe, generator));
  const x = randn([BATCH, WIDTH], { generator, requiresGrad: true });
  return { layers, x, direction: randn([BATCH, WIDTH], { generator }) };
}

/** |gradient| at the input and after each layer, over that after the last. */
export function ratios(recipe: Recipe, seed: number, depth = DEPTH): number[] {
  return scope(() => {
    const { layers, x, direction } = draw(recipe, seed, depth);
    const states = [x];
    for (const layer of layers) states.push(layer.call(states.at(-1)!));
    const gradients = grad(states.at(-1)!, states, { gradOutputs: direction });
    const norms = gradients.map((g) => g.norm().item());
    return norms.map((norm) => norm / norms.at(-1)!);
  });
}

/** For the input and each layer the median over networks with the seeds 0, 1, ... */
export function medianRatios(recipe: Recipe, seeds: number, depth = DEPTH): number[] {
  const runs = Array.from({ length: seeds }, (_, seed) => ratios(recipe, seed, depth));
  return Array.from({ length: depth + 1 }, (_, k) => median(runs.map((run) => run[k]!)));
}

/** The library's report of one network. */
export function flowOf(recipe: Recipe, seed: number, depth = DEPTH): GradientFlow {
  const { layers, x, direction } = draw(recipe, seed, depth);
  const net = new nn.Sequential(...layers);
  return gradientFlow(net, () => net.call(x).mul(direction).sum());
}

export interface Scale {
  /** Share of units that are on. */
  readonly active: number;
  /** Mean square of what leaves the layer over that of what enters it, forward and backward. */
  readonly forward: number;
  readonly backward: number;
}

/**
 * Why He's variance is 2/n: half of the units are off, so that a layer keeps half of the sum of n squares, each of
 * variance v; n · v / 2 is 1 for v = 2/n. The same count holds backward.
 */
export function scaleOfLayer(recipe: Recipe, seed: number): Scale {
  const generator = new Generator(seed);
  const layer = new Layer(recipe, generator);
  const x = randn([BATCH, WIDTH], { generator, requiresGrad: true });
  const direction = randn([BATCH, WIDTH], { generator });
  const y = layer.call(x);
  y.backward(direction);
  const meanSquare = (t: Tensor): number => t.detach().square().mean().item();
  return {
    active: 1 - y.eq(0).to('float32').mean().item(),
    forward: meanSquare(y) / meanSquare(x),
    backward: meanSquare(x.grad!) / meanSquare(direction),
  };
}
