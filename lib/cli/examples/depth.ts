// A deep network: where its gradient vanishes or explodes, and what keeps it. Layer cli.
import { Generator, nn, noGrad, randn, type Tensor } from '../../index.ts';
import { choice, example, number, whole } from './example.ts';

const WIDTH = 16;
const BATCH = 8;

const ACTIVATIONS = { sigmoid: nn.Sigmoid, tanh: nn.Tanh, relu: nn.ReLU };
type Activation = keyof typeof ACTIVATIONS;

/** act(W x), with or without a norm before it and x added to it. */
class Block extends nn.Module {
  readonly norm: nn.LayerNorm | null;
  readonly linear: nn.Linear;
  readonly act: nn.Module;
  readonly #residual: boolean;

  constructor(activation: Activation, { norm, residual }: { norm: boolean; residual: boolean }) {
    super();
    this.norm = norm ? new nn.LayerNorm(WIDTH) : null;
    this.linear = new nn.Linear(WIDTH, WIDTH, { bias: false });
    this.act = new ACTIVATIONS[activation]();
    this.#residual = residual;
  }

  override forward(x: Tensor): Tensor {
    const y = this.act.call(this.linear.call(this.norm?.call(x) ?? x));
    return this.#residual ? x.add(y) : y;
  }
}

/** Weights of the scale that suits the activation, times a factor. */
function draw(weight: Tensor, activation: Activation, scale: number, generator: Generator): void {
  if (activation === 'relu') nn.init.kaimingNormal_(weight, { nonlinearity: 'relu', generator });
  else nn.init.xavierNormal_(weight, { generator });
  noGrad(() => weight.mul_(scale));
}

export const depth = example(
  {
    id: 'depth',
    title: 'Sigmoid against ReLU over depth',
    text: 'Watch the norm of the gradient on its way to the first layer. Sigmoids lose it; weights that are too large make it explode; residual connections and layer norm keep it in bounds.',
  },
  {
    activation: choice('Activation', 'sigmoid', 'tanh', 'relu'),
    depth: whole('Layers', 10, 1, 40),
    scale: number('Scale of the weights', 1, 0, 100),
    residual: choice('Residual', 'no', 'yes'),
    norm: choice('Norm', 'none', 'layer norm'),
    seed: whole('Seed', 0, 0, 2 ** 31),
  },
  (values) => {
    const generator = new Generator(values.seed);
    const activation = values.activation as Activation;
    const form = { norm: values.norm === 'layer norm', residual: values.residual === 'yes' };
    const net = new nn.Sequential(...Array.from({ length: values.depth }, () => new Block(activation, form)));
    for (const block of net) draw((block as Block).linear.weight, activation, values.scale, generator);
    const x = randn([BATCH, WIDTH], { generator });
    const direction = randn([BATCH, WIDTH], { generator });
    return { loss: () => net.call(x).mul(direction).mean(), names: { x, direction } };
  },
);
