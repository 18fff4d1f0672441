// Changes of views while their gradient is recorded: programs against the values and derivatives that PyTorch gives, and
// against themselves forward; what happens to other views, to handles outside the graph, and what is refused.
import { describe, expect, it } from 'vitest';
import { AutogradError, grad, gradgradcheck, hvp, jvp, noGrad, type Tensor, vmap, zeros } from '../lib/index.ts';
import { expectClose, f64, leaf, thrownBy, values } from './support.ts';

interface Program {
  run: (x: Tensor) => Tensor;
  /** At [1, -2, 3, 0.5]: the value, its gradient, and the gradient of the sum of the gradient's squares. */
  value: number;
  gradient: number[];
  second: number[];
}
const cubes = (x: Tensor): Tensor => x.pow(3).sum();
const squares = (x: Tensor): Tensor => x.square().sum();

const PROGRAMS: Record<string, Program> = {
  'a buffer filled row by row': {
    run: (x) => {
      const buffer = zeros([3, 4], { dtype: 'float64' });
      for (let i = 0; i < 3; i++) buffer.select(0, i).copy_(x.pow(i + 1));
      return buffer.sin().sum();
    },
    value: 2.230073438616778,
    gradient: [3.2418138352088386, 0.4524272412039429, -14.344521903722084, 2.5906432340230143],
    second: [-48.35603200762011, 141.08892666791976, 20634.772526280372, 21.333733613546187],
  },
  'a part scaled': {
    run: (x) => {
      const y = x.mul(1);
      y.narrow(0, 1, 2).mul_(3);
      return cubes(y);
    },
    value: 514.125,
    gradient: [3, 324, 729, 0.75],
    second: [36, -209952, 708588, 4.5],
  },
  'views of views, and older ones': {
    run: (x) => {
      const y = x.mul(1).reshape([2, 2]);
      const older = y.select(0, 0);
      const turned = y.T;
      turned.select(1, 1).mul_(4);
      y.add_(1);
      return older.mul(turned.select(0, 0)).sum().add(cubes(y.T));
    },
    value: 2222,
    gradient: [16, 16, 2024, 108],
    second: [448, 16000, 5052032, 62208],
  },
  'overlapping parts': {
    run: (x) => {
      const y = x.mul(1);
      const [a, b] = [y.narrow(0, 0, 3), y.narrow(0, 1, 3)];
      a.mul_(2);
      b.add_(a.clone());
      return squares(y).add(a.sum().mul(b.sum()));
    },
    value: 67.25,
    gradient: [30, 34, 55, 15],
    second: [6416, 8824, 7076, 1232],
  },
  'a part with steps': {
    run: (x) => {
      const y = x.mul(x);
      y.narrow(0, 1, 3)
        .slice(0, 0, 3, 2)
        .add_(x.narrow(0, 0, 2));
      return squares(y);
    },
    value: 110.0625,
    gradient: [14, -43.5, 108, -3.5],
    second: [1088, -4936, 23328, -139],
  },
  'a diagonal': {
    run: (x) => {
      const y = x.mul(x).reshape([2, 2]);
      y.diagonal().mul_(x.narrow(0, 0, 2));
      return y.matmul(y).sum();
    },
    value: 79.75,
    gradient: [45, -71, 51, -24],
    second: [13260, -11722.75, 10533, -2002],
  },
};
const POINT = [1, -2, 3, 0.5];

describe.each(Object.entries(PROGRAMS))('%s', (_, { run, value, gradient, second }) => {
  it('has the value and the derivatives of PyTorch', () => {
    const x = leaf(POINT);
    const y = run(x);
    expectClose(values(y), [value], 1e-12);
    const [g] = grad(y, x, { createGraph: true });
    expectClose(values(g!), gradient, 1e-12);
    expectClose(values(grad(squares(g!), x)[0]!), second, 1e-12);
    gradgradcheck(run, leaf(POINT));
  });

  it('has the same derivatives forward', () => {
    const v = f64([0.5, 1, -1, 2]);
    const along = gradient.reduce((sum, g, i) => sum + g * v.toTypedArray()[i]!, 0);
    expectClose([jvp(run, f64(POINT), v)[1].item()], [along], 1e-12);
    expectClose([noGrad(() => jvp(run, f64(POINT), v)[1].item())], [along], 1e-12);
    const x = leaf(POINT);
    const [g] = grad(run(x), x, { createGraph: true });
    expectClose(values(hvp(run, f64(POINT), v)), values(grad(g!.mul(v).sum(), x)[0]!), 1e-11);
  });

  it('has them behind vmap', () => {
    const x = leaf(POINT);
    const shared = run(x);
    const [g] = grad(vmap((a: Tensor) => a.mul(shared))(f64([1, 2, 4])).sum(), x);
    expectClose(
      values(g!),
      gradient.map((one) => one * 7),
      1e-12,
    );
  });
});

describe('afterwards', () => {
  it('the base, the view and older views have their places in the graph, and hooks stay with the values they saw', () => {
    const x = leaf([1, 2, 3]);
    const y = x.mul(2);
    const [view, older] = [y.narrow(0, 0, 2), y.select(0, 2)];
    const seen: number[][] = [];
    view.registerHook((g) => void seen.push(values(g)));
    y.retainGrad();
    view.mul_(10);
    expect([y, view, older].map((t) => t.gradFn!.name)).toEqual([
      'CopySlices',
      'AsStridedBackward',
      'AsStridedBackward',
    ]);
    y.sum().backward();
    expect([values(x.grad!), values(y.grad!), seen]).toEqual([[20, 20, 2], [1, 1, 1], [[10, 10]]]);
  });

  it('a base outside the graph is in it, with what is a view of it', () => {
    const base = zeros([3], { dtype: 'float64' });
    const older = base.narrow(0, 0, 2);
    base.narrow(0, 1, 2).add_(leaf([1, 2]));
    expect([base.requiresGrad, older.requiresGrad, base.detach().requiresGrad]).toEqual([true, true, false]);
    expect(values(older)).toEqual([0, 1]);
  });

  it('a handle outside the graph stays outside', () => {
    const y = leaf([1, 2, 3]).mul(1);
    const outside = y.detach();
    y.narrow(0, 0, 1).mul_(5);
    expect([outside.mul(2).requiresGrad, values(outside)]).toEqual([false, [5, 2, 3]]);
  });

  it('unless it is changed by what is in it', () => {
    const x = leaf([1, 2]);
    const outside = x.detach();
    outside.mul_(x.mul(2));
    outside.relu_();
    expect(values(grad(outside.sum(), x)[0]!)).toEqual([2, 4]);
  });

  it('a saved value that lies in the same storage is noticed', () => {
    const y = leaf([1, 2, 3]).mul(1);
    const z = y.narrow(0, 2, 1).square();
    y.narrow(0, 0, 1).mul_(5);
    expect((thrownBy(() => z.backward()) as Error).message).toMatch(/changed in place.*in-place-views\.test\.ts/);
  });

  it('nothing is recorded without need', () => {
    const x = leaf([1, 2, 3]);
    const y = x.mul(1);
    noGrad(() => y.narrow(0, 0, 1).mul_(5));
    expect([y.gradFn!.name, values(y)]).toEqual(['MulBackward', [5, 2, 3]]);
    noGrad(() => x.narrow(0, 0, 1).fill_(7));
    expect([x.isLeaf, values(x)]).toEqual([true, [7, 2, 3]]);
  });
});

describe('refused, with nothing changed, is', () => {
  it.each<[string, (x: Tensor) => Tensor, (x: Tensor) => unknown, RegExp]>([
    ['a view of a leaf', (x) => x, (x) => x.narrow(0, 0, 1).mul_(2), /^mul_: a view of a leaf that requires grad/],
    ['an expanded view', (x) => x.mul(1), (x) => x.expand([2, 3]).mul_(2), /^mul_: .*expanded view/],
    [
      'a view of a handle that is not row-major',
      (x) => x.mul(1).reshape([3, 1]).expand([3, 2]).mul(1),
      (x) =>
        x.T.detach()
          .narrow(0, 0, 1)
          .mul_(x.narrow(0, 0, 3).select(1, 0)),
      /^mul_: a view of shape \[1,3\] cannot be changed in place/,
    ],
  ])('%s', (_, make, change, message) => {
    const y = make(leaf([1, 2, 3]));
    const before = values(y);
    const error = thrownBy(() => change(y)) as Error;
    expect(error.name).toMatch(/AutogradError|ShapeError/);
    expect(error.message).toMatch(message);
    expect(values(y)).toEqual(before);
  });

  it('a stale view whose elements are shared', () => {
    const y = leaf([1, 2, 3]).mul(1);
    const expanded = y.expand([2, 3]);
    y.mul_(2);
    expect(thrownBy(() => expanded.sum())).toBeInstanceOf(AutogradError);
    expect(values(noGrad(() => expanded.sum()))).toEqual([24]);
    expect(String(expanded)).toContain('tensor(');
  });
});
