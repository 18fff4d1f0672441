// Random compositions of ops, taken through every way to differentiate: reverse, forward, their products, checkpoints,
// hooks, vmap around and inside. Every way gives the numbers of the plainest one.
import { describe, expect, it } from 'vitest';
import {
  addmm,
  autograd,
  cat,
  checkpoint,
  conv1d,
  crossEntropy,
  einsum,
  Generator,
  grad,
  hessian,
  hvp,
  jvp,
  maximum,
  mseLoss,
  randn,
  savedTensorsHooks,
  scaledDotProductAttention,
  scope,
  stack,
  type Tensor,
  tensor,
  vjp,
  vmap,
  where,
} from '../lib/index.ts';
import { mulberry32 } from './random.ts';
import { expectClose, values } from './support.ts';

const normal = (shape: number[], seed: number): Tensor =>
  randn(shape, { dtype: 'float64', generator: new Generator(seed) });

/** [ab, 3a]: an input that one output does not depend on. */
class Product extends autograd.Function {
  static forward(ctx: autograd.FunctionContext, a: Tensor, b: Tensor): [Tensor, Tensor] {
    ctx.saveForBackward(a, b);
    return [a.mul(b), a.mul(3)];
  }
  static backward(ctx: autograd.FunctionContext, g: Tensor, h: Tensor): [Tensor, Tensor] {
    const [a, b] = ctx.savedTensors;
    return [g.mul(b!).add(h.mul(3)), g.mul(a!)];
  }
}
class Tangens extends autograd.Function {
  static forward(ctx: autograd.FunctionContext, a: Tensor): Tensor {
    const y = a.tanh();
    ctx.saveForBackward(y);
    return y;
  }
  static backward(ctx: autograd.FunctionContext, g: Tensor): Tensor {
    return g.mul(ctx.savedTensors[0]!.square().neg().add(1));
  }
}

const W = normal([3, 3], 1);
const ORDER = tensor([1, 0, 2], { dtype: 'int32' });
const CLASS = tensor([1], { dtype: 'int32' });
type Op = (x: Tensor, y: Tensor) => Tensor;
/** Vectors of three to vectors of three. */
const OPS: Record<string, Op> = {
  sin: (x) => x.sin(),
  gelu: (x) => x.gelu(),
  sigmoid: (x) => x.sigmoid(),
  power: (x) => x.abs().add(0.5).pow(1.3),
  softmax: (x) => x.softmax(0),
  logSoftmax: (x) => x.logSoftmax(0),
  logsumexp: (x) => x.logsumexp(0).add(x),
  layerNorm: (x) => x.add(tensor([0, 1, 3], { dtype: 'float64' })).layerNorm([3]),
  cumsum: (x) => x.cumsum(0),
  sum: (x) => x.sum().mul(x),
  prod: (x) => x.prod().mul(x).mul(0.3),
  largest: (x) => x.max(0)[0]!.mul(x),
  std: (x) => x.std().expand([3]).mul(x),
  norm: (x) => x.div(x.norm().add(1)),
  sort: (x) => x.sort(0)[0]!,
  mv: (x) => W.mv(x),
  matmul: (x) => x.outer(x).matmul(W).sum(1).mul(0.3),
  linear: (x) => x.unsqueeze(0).linear(W).squeeze(0),
  addmm: (x) => addmm(x, x.reshape([1, 3]), W).reshape([3]),
  einsum: (x) => einsum('i,ij,j->j', x, W, x),
  conv: (x) => conv1d(x.reshape([1, 1, 3]), W.narrow(0, 0, 1).reshape([1, 1, 3]), null, { padding: 1 }).reshape([3]),
  attention: (x) => {
    const [q, k, v] = [x, x.sin(), x.cos()].map((t) => t.reshape([1, 3, 1]));
    return scaledDotProductAttention(q!, k!, v!).reshape([3]);
  },
  indexSelect: (x) => x.indexSelect(0, ORDER),
  scatterAdd: (x) => x.mul(0).scatterAdd(0, ORDER, x.sin()),
  diagonal: (x) => x.outer(x.sin()).diagonal(),
  transposed: (x) => x.outer(x).T.softmax(1).select(0, 1),
  cat: (x) => cat([x.narrow(0, 1, 2), x.narrow(0, 0, 1)], 0),
  stack: (x) => stack([x.select(0, 2), x.select(0, 0).sin(), x.select(0, 1)], 0),
  where: (x) => where(x.gt(0), x.mul(2), x.exp()),
  detach: (x) => x.detach().mul(x),
  mseLoss: (x) => mseLoss(x, x.sin()).add(x),
  crossEntropy: (x) => crossEntropy(x.reshape([1, 3]), CLASS).mul(x),
  Function: (x) => Tangens.apply(x),
  'Function of two': (x, y) => Product.apply(x, y)[0].add(Product.apply(y, x)[1].mul(0.1)),
  'one of two': (x, y) => Product.apply(x, y)[1].add(y),
  checkpoint: (x) => checkpoint((a: Tensor) => a.sin().mul(a), x),
  jvp: (x) => jvp((a) => a.sin().mul(a), x, x.mul(0).add(1))[1].add(x),
  vjp: (x) => {
    const [out, pull] = vjp((a: Tensor) => a.sin().mul(a), x);
    return pull(out);
  },
  vmap: (x) => vmap((e: Tensor) => e.mul(x).sum().sin())(x),
  hessian: (x) =>
    hessian((a) => a.pow(3).prod(), x.mul(0.3))
      .sum(0)
      .add(x),
  add: (x, y) => x.add(y),
  mul: (x, y) => x.mul(y),
  div: (x, y) => x.div(y.square().add(1)),
  maximum: (x, y) => maximum(x, y),
};
/** Not inside vmap. */
const IN_PLACE: Record<string, Op> = {
  'exp_ and mul_': (x) => x.mul(1).add_(x).exp_().mul(0.2),
  'mul_ and tanh_': (x) => x.mul(2).mul_(x).tanh_(),
  copy_: (x) => x.mul(0).copy_(x.square()),
};

interface Program {
  steps: [name: string, left: number, right: number][];
  /** A scalar of x and of a leaf. */
  f: (x: Tensor, weights?: Tensor) => Tensor;
  w: Tensor;
  x: Tensor;
  v: Tensor;
}

function programOf(seed: number, ops: Record<string, Op>): Program {
  const random = mulberry32(seed);
  const below = (n: number): number => Math.floor(random() * n);
  const names = Object.keys(ops);
  const steps = Array.from({ length: 2 + below(4) }, (_, i): [string, number, number] => [
    names[below(names.length)]!,
    below(i + 1),
    below(i + 1),
  ]);
  const w = normal([3], seed + 1000).requiresGrad_();
  const f = (x: Tensor, weights = w): Tensor => {
    const all = [x];
    for (const [name, left, right] of steps) all.push(ops[name]!(all[left]!, all[right]!));
    return all
      .reduce((a, b) => a.add(b))
      .mul(weights.sin())
      .sum();
  };
  return { steps, f, w, x: normal([3], seed), v: normal([3], seed + 500) };
}

const loop = (count: number, f: (i: number) => Tensor): Tensor =>
  stack(
    Array.from({ length: count }, (_, i) => f(i)),
    0,
  );
const hooked = (fn: () => Tensor): Tensor =>
  savedTensorsHooks(
    (t) => t.clone(),
    (t) => t.clone(),
    fn,
  );
const gradientOf =
  (f: (x: Tensor) => Tensor) =>
  (x: Tensor): Tensor => {
    const input = x.mul(1);
    if (!input.requiresGrad) input.requiresGrad_();
    return grad(f(input), input, { createGraph: true })[0]!;
  };

type Check = (p: Program) => readonly [got: Tensor, expected: Tensor];
const CHECKS: Record<string, Check> = {
  'forward is reverse': ({ f, x, v }) => [jvp((a) => f(a), x, v)[1], gradientOf(f)(x).mul(v).sum()],
  'hvp is hessian times v': ({ f, x, v }) => [hvp((a) => f(a), x, v), hessian((a) => f(a), x).mv(v)],
  'forward over reverse': ({ f, x, v }) => [jvp(gradientOf(f), x, v)[1], hvp((a) => f(a), x, v)],
  'reverse over forward': ({ f, x, v }) => [
    gradientOf((a) => jvp((b) => f(b), a, v)[1].add(a.sum().mul(0)))(x),
    hvp((a) => f(a), x, v),
  ],
  'forward over forward': ({ f, x, v }) => [
    jvp((a) => jvp((b) => f(b), a, v)[1], x, v)[1],
    hvp((a) => f(a), x, v)
      .mul(v)
      .sum(),
  ],
  'a checkpoint': ({ f, x }) => [gradientOf((a) => checkpoint((b: Tensor) => f(b), a))(x), gradientOf(f)(x)],
  'a checkpoint, for what it closes over': ({ f, x, w }) => [
    grad(
      checkpoint((a: Tensor) => f(a), x),
      w,
    )[0]!,
    grad(f(x), w)[0]!,
  ],
  'hvp through a checkpoint': ({ f, x, v }) => [
    hvp((a) => checkpoint((b: Tensor) => f(b), a), x, v),
    hvp((a) => f(a), x, v),
  ],
  'hessian through a checkpoint': ({ f, x }) => [
    hessian((a) => checkpoint((b: Tensor) => f(b), a), x),
    hessian((a) => f(a), x),
  ],
  'hvp through hooks': ({ f, x, v }) => [hvp((a) => hooked(() => f(a)), x, v), hvp((a) => f(a), x, v)],
  hooks: ({ f, x, w }) => [
    grad(
      hooked(() => f(x)),
      w,
    )[0]!,
    grad(f(x), w)[0]!,
  ],
};
const batchOf = ({ x, v }: Program): Tensor => stack([x, v, x.mul(0.5)], 0);
const VMAP_CHECKS: Record<string, Check> = {
  values: (p) => [vmap((a: Tensor) => p.f(a))(batchOf(p)), loop(3, (i) => p.f(batchOf(p).select(0, i)))],
  'gradients per example': (p) => [
    vmap(gradientOf(p.f))(batchOf(p)),
    loop(3, (i) => gradientOf(p.f)(batchOf(p).select(0, i))),
  ],
  'gradients per example of a leaf outside': (p) => [
    vmap((a: Tensor) => grad(p.f(a), p.w)[0]!)(batchOf(p)),
    loop(3, (i) => grad(p.f(batchOf(p).select(0, i)), p.w)[0]!),
  ],
  'gradients through it': (p) => {
    const [got, expected] = [
      (b: Tensor) => vmap((a: Tensor) => p.f(a))(b),
      (b: Tensor) => loop(3, (i) => p.f(b.select(0, i))),
    ].map((run) => {
      const batch = batchOf(p).requiresGrad_();
      return cat(grad(run(batch).square().sum(), [batch, p.w]).map((g) => g.flatten()));
    });
    return [got!, expected!];
  },
  hessians: (p) => [
    vmap((a: Tensor) => hessian((b) => p.f(b), a))(batchOf(p)),
    loop(3, (i) => hessian((b) => p.f(b), batchOf(p).select(0, i))),
  ],
  'hvp inside and outside': (p) => {
    const [x, v] = [batchOf(p), batchOf(p).flip([0])];
    return [
      hvp((all) => vmap((a: Tensor) => p.f(a))(all).sum(), x, v),
      vmap((a: Tensor, t: Tensor) => hvp((b) => p.f(b), a, t))(x, v),
    ];
  },
  'jvp inside and outside': (p) => {
    const [x, v] = [batchOf(p), batchOf(p).flip([0])];
    return [
      jvp((all) => vmap((a: Tensor) => p.f(a))(all), x, v)[1],
      vmap((a: Tensor, t: Tensor) => jvp((b) => p.f(b), a, t)[1])(x, v),
    ];
  },
  'a checkpoint inside': (p) => [
    vmap(gradientOf((a) => checkpoint((b: Tensor) => p.f(b), a)))(batchOf(p)),
    vmap(gradientOf(p.f))(batchOf(p)),
  ],
  'vmap in vmap': (p) => {
    const table = batchOf(p);
    const one = (a: Tensor, w: Tensor): Tensor => gradientOf((b) => p.f(b, w))(a);
    return [
      vmap((a: Tensor) => vmap((w: Tensor) => one(a, w))(table))(table),
      loop(3, (i) => loop(3, (j) => one(table.select(0, i), table.select(0, j)))),
    ];
  },
};

const PROGRAMS = 60;
function run(check: Check, ops: Record<string, Op>): void {
  for (let seed = 0; seed < PROGRAMS; seed++) {
    scope(() => {
      const program = programOf(seed, ops);
      const what = `program ${seed}: ${program.steps.map((step) => step.join(' ')).join(', ')}`;
      let pair: readonly [Tensor, Tensor];
      try {
        pair = check(program);
      } catch (error) {
        return expect.fail(`${what}: ${(error as Error).message}`);
      }
      expect(pair[0].shape, what).toEqual(pair[1].shape);
      expectClose(values(pair[0]), values(pair[1]), 1e-8, what);
    });
  }
}

describe('random compositions', () => {
  it.each(Object.entries(CHECKS))('%s', (_, check) => run(check, { ...OPS, ...IN_PLACE }));
  it.each(Object.entries(VMAP_CHECKS))('vmap: %s', (_, check) => run(check, OPS));
});
