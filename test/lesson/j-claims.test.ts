// The lesson, J: what interviews ask, as facts that run. R89 to R94 of the requirements, a test each.
import { describe, expect, it } from 'vitest';
import {
  elu,
  gelu,
  grad,
  jacobian,
  jvp,
  leakyRelu,
  linear,
  manualSeed,
  mseLoss,
  nn,
  ones,
  rand,
  randn,
  relu,
  sigmoid,
  type Tensor,
  tanh,
  tensor,
  vjp,
  zeros,
} from '../../lib/index.ts';
import { expectClose, f64, gradOf, leaf, values } from '../support.ts';
import { golden, isLeafNode, nodeOf, nodesOf, opNodes, peakOf, report, TIGHT, timeOf, watch } from './lesson.ts';

const DOUBLE = { dtype: 'float64' } as const;
const ROW = 8;

describe('question 1: what backpropagation costs', () => {
  it('R89: backward runs at most one node for each op of the forward pass', () => {
    const C = 1;
    const rows = [4, 40, 400].map((depth) => {
      let ops = 0;
      const op = (result: Tensor): Tensor => {
        ops++;
        return result;
      };
      const [x, w, b] = [leaf([1, -1]), leaf([0.5, 2]), leaf([0.1, 0.2])];
      let h = x;
      for (let i = 0; i < depth; i++) h = op(op(op(h.mul(w)).add(b)).tanh());
      const loss = op(op(h.square()).mean());
      const ran = watch(loss);
      loss.backward();
      expect(ops).toBe(3 * depth + 2);
      expect(ran.length).toBeLessThanOrEqual(C * ops);
      expect(new Set(ran).size).toBe(ran.length);
      // None left out, either, and one more for each leaf, however often it is used.
      expect(ran).toHaveLength(ops);
      expect(nodesOf(loss).filter(isLeafNode)).toHaveLength(3);
      return { 'forward ops': ops, 'backward nodes': ran.length, 'nodes per op': ran.length / ops };
    });
    report('R89: nodes that backward runs', rows);
    // Layers are made of a few ops each.
    const model = new nn.Sequential(new nn.Linear(4, 8), new nn.ReLU(), new nn.Linear(8, 1));
    const loss = mseLoss(model.call(ones([3, 4])), ones([3, 1]));
    expect(opNodes(loss).length).toBeLessThanOrEqual(3 * 4);
  });
});

describe('question 2: Jacobians and products with them', () => {
  it('R90: a Jacobian takes m × n numbers, a VJP m + n', () => {
    const rows = [128, 256, 512].map((n) => {
      const w = rand([n, n], DOUBLE);
      const [x, v] = [ones([n], DOUBLE), ones([n], DOUBLE)];
      const layer = (t: Tensor): Tensor => w.matmul(t).tanh();
      const pulled = (): Tensor => vjp(layer, x)[1](v) as Tensor;
      const byVjp = peakOf(() => void expect(pulled().shape).toEqual([n]));
      const byJacobian = peakOf(() => {
        const full = jacobian(layer, x);
        expect(full.shape).toEqual([n, n]);
        expectClose(values(v.matmul(full)), values(pulled()), TIGHT);
      });
      return { 'm = n': n, vjp: byVjp, jacobian: byJacobian, ratio: Number((byJacobian / byVjp).toFixed(1)) };
    });
    report('R90: bytes at the peak, y = tanh(Wx)', rows);
    rows.forEach(({ 'm = n': n, vjp: bytes, jacobian: full }) => {
      expect(full).toBeGreaterThanOrEqual(n * n * ROW);
      expect(bytes).toBeGreaterThanOrEqual(2 * n * ROW);
      expect(bytes).toBeLessThanOrEqual(8 * n * ROW);
    });
    // Four times the Jacobian for twice the inputs, and twice the VJP.
    expect(rows[2]!.jacobian / rows[1]!.jacobian).toBeGreaterThan(3);
    expect(rows[2]!.vjp / rows[1]!.vjp).toBeLessThan(2.5);
  });
});

describe('question 3: vanishing gradients', () => {
  /** dy/dx at x of f applied so often. */
  const through = (f: (x: Tensor) => Tensor, at: number, times: number): number => {
    const x = leaf(at);
    let y = x;
    for (let i = 0; i < times; i++) y = f(y);
    y.backward();
    return x.grad!.item();
  };

  it('R91: ten sigmoids leave at most 0.25¹⁰ ≈ 10⁻⁶ of a gradient, ten relus all of it', () => {
    // σ(x) - 0.5 stays at 0, where σ is steepest.
    const steepest = (x: Tensor): Tensor => sigmoid(x).sub(0.5);
    expect(through(steepest, 0, 1)).toBe(0.25);
    expect(through(steepest, 0, 10)).toBe(golden.vanishing['0.25^10']);
    expect(through(steepest, 0, 10).toExponential(4)).toBe('9.5367e-7');
    expect(Math.round(Math.log10(through(steepest, 0, 10)))).toBe(-6);
    for (const at of [-3, -0.5, 0.7, 4]) {
      expect(through(sigmoid, at, 10)).toBeGreaterThan(0);
      expect(through(sigmoid, at, 10)).toBeLessThan(0.25 ** 10);
    }
    expect([through(relu, 2, 10), through(relu, -2, 10), through(relu, 0, 1)]).toEqual([1, 0, 0]);
    // The variants let something through below zero.
    expectClose([through((x) => leakyRelu(x), -2, 10)], [1e-20], 1e-30);
    expect(through((x) => leakyRelu(x), -2, 1)).toBeCloseTo(0.01, 15);
    expect(through((x) => leakyRelu(x, 0.2), -2, 1)).toBeCloseTo(0.2, 15);
    expect(through((x) => leakyRelu(x), 2, 10)).toBe(1);
    expectClose([through((x) => elu(x), -2, 1)], [Math.exp(-2)], TIGHT);
    expectClose([through((x) => gelu(x), -0.5, 1)], [0.30853753872598688 - 0.5 * 0.35206532676429952], TIGHT);
    expectClose([through(tanh, 0.5, 1)], [1 - Math.tanh(0.5) ** 2], TIGHT);
  });
});

describe('question 4: the linear layer', () => {
  it('R92: ∂W = δ xᵀ, ∂b = δ, ∂x = Wᵀ δ, exactly', () => {
    const [w, b, x] = [
      leaf([
        [1, -2, 3],
        [4, 5, -6],
      ]),
      leaf([10, 20]),
      leaf([7, 8, 9]),
    ];
    const delta = f64([3, -2]);
    const expected = { w: [21, 24, 27, -14, -16, -18], b: [3, -2], x: [3 - 8, -6 - 10, 9 + 12] };
    for (const [form, y] of [
      ['W x + b', w.matmul(x).add(b)],
      ['linear', linear(x, w, b)],
    ] as const) {
      expect(values(y), form).toEqual([7 - 16 + 27 + 10, 28 + 40 - 54 + 20]);
      const pulled = grad(y, [w, b, x], { gradOutputs: delta });
      expect(pulled.map((g) => g.shape)).toEqual([[2, 3], [2], [3]]);
      expect(pulled.map(values), form).toEqual([expected.w, expected.b, expected.x]);
    }
    // Element (i, j) is δᵢ xⱼ.
    const [dw] = grad(linear(x, w, b), [w], { gradOutputs: delta });
    [0, 1].forEach((i) => {
      [0, 1, 2].forEach((j) => void expect(dw!.select(0, i).select(0, j).item()).toBe([3, -2][i]! * [7, 8, 9][j]!));
    });
    // In a batch the rows are added up.
    const batch = f64([
      [7, 8, 9],
      [1, 0, -1],
    ]).requiresGrad_();
    const rows = f64([
      [3, -2],
      [5, 1],
    ]);
    linear(batch, w, b).backward(rows);
    expect(gradOf(w)).toEqual([21 + 5, 24, 27 - 5, -14 + 1, -16, -18 - 1]);
    expect(gradOf(b)).toEqual([8, -1]);
    expect(gradOf(batch)).toEqual([...expected.x, 5 + 4, -10 + 5, 15 - 6]);
  });
});

describe('question 5: forward and reverse mode', () => {
  interface Sweeps {
    jacobian: Tensor;
    sweeps: number;
  }
  const basis = (n: number, i: number): Tensor => f64(Array.from({ length: n }, (_, k) => Number(k === i)));
  const byColumns = (fn: (x: Tensor) => Tensor, x: Tensor): Sweeps => {
    let sweeps = 0;
    const counted = (t: Tensor): Tensor => {
      sweeps++;
      return fn(t);
    };
    const columns = Array.from({ length: x.numel }, (_, j) => values(jvp(counted, x, basis(x.numel, j))[1]));
    return { jacobian: f64(columns).T, sweeps };
  };
  const byRows = (fn: (x: Tensor) => Tensor, x: Tensor): Sweeps => {
    const input = x.detach().requiresGrad_();
    const y = fn(input);
    let sweeps = 0;
    nodeOf(y).registerHook(() => void sweeps++);
    const rows = Array.from({ length: y.numel }, (_, i) =>
      values(grad(y, input, { gradOutputs: basis(y.numel, i), retainGraph: true })[0]!),
    );
    return { jacobian: f64(rows), sweeps };
  };

  it('R93: forward mode takes a sweep per input, reverse mode a sweep per output', () => {
    manualSeed(7);
    const rows = [
      [1, 64],
      [8, 8],
      [64, 1],
    ].flatMap(([inputs, outputs]) => {
      const [w, x] = [randn([outputs!, inputs!], DOUBLE), randn([inputs!], DOUBLE)];
      const fn = (t: Tensor): Tensor => w.matmul(t.tanh()).sin();
      // cos(W tanh x) W (1 - tanh² x), by hand.
      const [y, slope] = [w.matmul(x.tanh()).cos(), x.tanh().square().neg().add(1)];
      const exact = values(w.mul(slope).mul(y.unsqueeze(1)));
      return (
        [
          ['forward', byColumns, inputs],
          ['reverse', byRows, outputs],
        ] as const
      ).map(([mode, run, expected]) => {
        const { jacobian: full, sweeps } = run(fn, x);
        expect(full.shape).toEqual([outputs, inputs]);
        expectClose(values(full), exact, 1e-12, mode);
        expect(sweeps, `${mode}, ${inputs} → ${outputs}`).toBe(expected);
        const bytes = peakOf(() => run(fn, x));
        return { function: `${inputs} → ${outputs}`, mode, sweeps, ms: timeOf(() => run(fn, x)).toFixed(2), bytes };
      });
    });
    report('R93: a full Jacobian in either mode', rows);
    expect(rows.map(({ sweeps }) => sweeps)).toEqual([1, 64, 8, 8, 64, 1]);
    for (const { bytes } of rows) expect(bytes).toBeGreaterThan(64 * ROW);
  });
});

describe('the shape of gradients', () => {
  it("R94: the gradient of a scalar loss has each parameter's shape", () => {
    class Model extends nn.Module {
      readonly embedding = new nn.Embedding(11, 6);
      readonly first = new nn.Linear(6, 10);
      readonly norm = new nn.LayerNorm([10]);
      readonly last = new nn.Linear(10, 3, { bias: false });
      readonly scale = new nn.Parameter(tensor(2));
      readonly shift = new nn.Parameter(zeros([1, 3]));
      override forward(x: Tensor): Tensor {
        const h = this.norm.call(this.first.call(this.embedding.call(x))).tanh();
        return this.last.call(h).mul(this.scale).add(this.shift);
      }
    }
    const model = new Model();
    const input = tensor([1, 2, 3, 4, 10, 10], { dtype: 'int32', shape: [2, 3] });
    const loss = model.call(input).square().mean();
    expect(loss.shape).toEqual([]);
    loss.backward();
    const shapes = Object.fromEntries([...model.namedParameters()].map(([name, p]) => [name, p.grad?.shape]));
    expect(shapes).toEqual({
      'embedding.weight': [11, 6],
      'first.weight': [10, 6],
      'first.bias': [10],
      'norm.weight': [10],
      'norm.bias': [10],
      'last.weight': [3, 10],
      scale: [],
      shift: [1, 3],
    });
    for (const [name, p] of model.namedParameters()) {
      expect(p.grad!.shape, name).toEqual(p.shape);
      expect(p.grad!.dtype, name).toBe(p.dtype);
      expect(
        values(p.grad!).some((g) => g !== 0),
        name,
      ).toBe(true);
    }
  });
});
