// In-place ops: what they may change, what they must refuse before changing anything, and what backward() notices.
import { describe, expect, it } from 'vitest';
import {
  AutogradError,
  arange,
  ChainruleError,
  noGrad,
  ones,
  optim,
  ShapeError,
  type Tensor,
  tensor,
  zeros,
} from '../lib/index.ts';
import { expectClose, f64, gradOf, leaf, thrownBy, values } from './support.ts';

const versionOf = (t: Tensor): number => t.storage.version;

describe('the version of a storage', () => {
  it('the line of a change is noted once for what was saved, and not for a graph that was dropped long ago', () => {
    const w = leaf([1, 2]);
    w.square();
    const lines = [1, 2, 3].map(() => {
      noGrad(() => w.add_(1));
      const line = w.storage.changedAt;
      w.storage.changedAt = '';
      return line;
    });
    expect(lines).toEqual([expect.stringMatching(/in-place\.test\.ts:\d+/), '', '']);
  });

  const x = (): Tensor => f64([1, 2]);
  const changes: [string, (t: Tensor) => unknown][] = [
    ['add_', (t) => t.add_(1)],
    ['sub_', (t) => t.sub_(x())],
    ['mul_', (t) => t.mul_(2)],
    ['div_', (t) => t.div_(2)],
    ['pow_', (t) => t.pow_(2)],
    ['copy_', (t) => t.copy_(x())],
    ['fill_', (t) => t.fill_(3)],
    ['zero_', (t) => t.zero_()],
    ['clamp_', (t) => t.clamp_({ min: 0 })],
    ['maskedFill_', (t) => t.maskedFill_(tensor([true, false]), 1)],
    ['exp_', (t) => t.exp_()],
    ['relu_', (t) => t.relu_()],
    ['uniform_', (t) => t.uniform_()],
    ['normal_', (t) => t.normal_()],
    ['view', (t) => t.narrow(0, 0, 1).add_(1)],
    ['detach', (t) => t.detach().add_(1)],
    ['noGrad', (t) => noGrad(() => t.add_(1))],
  ];
  it.each(changes)('rises with %s', (_, change) => {
    const t = x();
    change(t);
    expect(versionOf(t)).toBe(1);
  });

  it('does not rise with a call that throws', () => {
    const t = x();
    expect(thrownBy(() => t.add_(f64([1, 2, 3])))).toBeInstanceOf(ShapeError);
    expect(thrownBy(() => t.add_(tensor([1, 2])))).toBeInstanceOf(ChainruleError);
    expect([versionOf(t), values(t)]).toEqual([0, [1, 2]]);
  });
});

describe('a leaf that requires grad', () => {
  it.each([
    ['add_', (t: Tensor) => t.add_(1)],
    ['mul_ by a tensor', (t: Tensor) => t.mul_(f64([2, 2]))],
    ['exp_', (t: Tensor) => t.exp_()],
    ['copy_', (t: Tensor) => t.copy_(f64([0, 0]))],
    ['fill_', (t: Tensor) => t.fill_(0)],
    ['zero_', (t: Tensor) => t.zero_()],
    ['uniform_', (t: Tensor) => t.uniform_()],
    ['a view of it', (t: Tensor) => t.narrow(0, 0, 1).add_(1)],
  ])('refuses %s at once, unchanged', (_, change) => {
    const t = leaf([1, 2]);
    expect(thrownBy(() => change(t))).toBeInstanceOf(AutogradError);
    expect([values(t), versionOf(t), t.isLeaf]).toEqual([[1, 2], 0, true]);
  });

  it('takes updates inside noGrad, which later backward passes notice', () => {
    const t = leaf([1, 2]);
    const loss = t.mul(t).sum();
    noGrad(() => t.sub_(f64([1, 1])));
    expect(values(t)).toEqual([0, 1]);
    expect(thrownBy(() => loss.backward())).toBeInstanceOf(AutogradError);
    expect(t.grad).toBeNull();
  });
});

describe('a result', () => {
  it('may change when its value was not saved', () => {
    const w = leaf([1, 2, 3]);
    const y = w.mul(2);
    y.add_(1);
    y.sum().backward();
    expect(gradOf(w)).toEqual([2, 2, 2]);
  });

  it.each([
    ['the input of pow', 'PowBackward', (x: Tensor) => [x, x.pow(2)]],
    ['the input of mul', 'MulBackward', (x: Tensor) => [x, x.mul(x)]],
    [
      'the output of exp',
      'ExpBackward',
      (x: Tensor) => {
        const y = x.exp();
        return [y, y];
      },
    ],
    [
      'a view of the output of tanh',
      'TanhBackward',
      (x: Tensor) => {
        const y = x.tanh();
        return [y.detach().narrow(0, 0, 1), y];
      },
    ],
  ])('must not change where it was saved: %s', (_, node, make) => {
    const w = leaf([1, 2]);
    const [changed, y] = make(w.mul(1)) as [Tensor, Tensor];
    const loss = y.clone();
    changed.add_(1);
    const error = thrownBy(() => loss.sum().backward());
    expect(error).toBeInstanceOf(AutogradError);
    const { message } = error as Error;
    for (const part of [node, 'float64', '[2]', 'version 0', 'at 1']) expect(message).toContain(part);
    expect(w.grad).toBeNull();
  });

  it('is differentiated as the op out of place is', () => {
    const other = (): Tensor => leaf([3, 4]);
    const pairs: [string, (x: Tensor, o: Tensor) => Tensor, (x: Tensor, o: Tensor) => Tensor][] = [
      ['add', (x, o) => x.add_(o), (x, o) => x.add(o)],
      ['sub', (x, o) => x.sub_(o), (x, o) => x.sub(o)],
      ['mul', (x, o) => x.mul_(o), (x, o) => x.mul(o)],
      ['mul a part of itself', (x) => x.mul_(x.select(0, 1)), (x) => x.mul(x.select(0, 1))],
      ['div itself', (x) => x.div_(x), (x) => x.div(x)],
      ['mul itself', (x) => x.mul_(x), (x) => x.mul(x)],
      ['div', (x, o) => x.div_(o), (x, o) => x.div(o)],
      ['pow', (x, o) => x.pow_(o), (x, o) => x.pow(o)],
      ['pow number', (x) => x.pow_(3), (x) => x.pow(3)],
      ['broadcast', (x, o) => x.mul_(o.sum()), (x, o) => x.mul(o.sum())],
      ['exp', (x) => x.exp_(), (x) => x.exp()],
      ['log', (x) => x.log_(), (x) => x.log()],
      ['sqrt', (x) => x.sqrt_(), (x) => x.sqrt()],
      ['square', (x) => x.square_(), (x) => x.square()],
      ['tanh', (x) => x.tanh_(), (x) => x.tanh()],
      ['sigmoid', (x) => x.sigmoid_(), (x) => x.sigmoid()],
      ['relu', (x) => x.relu_(), (x) => x.relu()],
      ['abs', (x) => x.abs_(), (x) => x.abs()],
      ['neg', (x) => x.neg_(), (x) => x.neg()],
      ['clamp', (x) => x.clamp_({ max: 1.5 }), (x) => x.clamp({ max: 1.5 })],
      ['maskedFill', (x) => x.maskedFill_(tensor([true, false]), 9), (x) => x.maskedFill(tensor([true, false]), 9)],
      ['twice', (x, o) => x.mul_(o).add_(x).exp_(), (x, o) => x.mul(o).mul(2).exp()],
      ['copy_', (x, o) => x.copy_(o), (x, o) => x.mul(0).add(o)],
    ];
    for (const [name, inPlace, outOfPlace] of pairs) {
      const results = [inPlace, outOfPlace].map((op) => {
        const [w, o] = [leaf([1, 2]), other()];
        const y = op(w.mul(1), o);
        y.mul(f64([1, 10]))
          .sum()
          .backward();
        return [values(y), gradOf(w), o.grad === null ? [0, 0] : values(o.grad)];
      });
      results[0]!.forEach((actual, i) => {
        expectClose(actual, results[1]![i]!, 1e-12, `${name} ${i}`);
      });
    }
  });

  it('of a constant becomes part of the graph', () => {
    const [buffer, w] = [zeros([2], { dtype: 'float64' }), leaf([3, 4])];
    buffer.add_(w.mul(2));
    expect([buffer.isLeaf, buffer.requiresGrad]).toEqual([false, true]);
    buffer.square().sum().backward();
    expect(gradOf(w)).toEqual([24, 32]);
  });

  it('copied across dtypes keeps its gradient', () => {
    const src = tensor([1, 2], { requiresGrad: true });
    const wide = zeros([3, 2], { dtype: 'float64' }).copy_(src);
    expect(wide.requiresGrad).toBe(true);
    wide.sum().backward();
    expect([src.grad!.dtype, ...gradOf(src)]).toEqual(['float32', 3, 3]);
  });
});

describe('views', () => {
  it('share changes with their base', () => {
    const base = zeros([2, 3]);
    base.select(0, 1).add_(1);
    base.T.select(0, 0).fill_(5);
    expect(values(base)).toEqual([5, 0, 0, 5, 1, 1]);
  });

  it('that overlap what is read give what reading first would give', () => {
    const x = arange(6).to('float64');
    x.slice(0, 1).add_(x.slice(0, 0, -1));
    expect(values(x)).toEqual([0, 1, 3, 5, 7, 9]);
    const y = arange(6).to('float64');
    y.slice(0, 0, -1).copy_(y.slice(0, 1));
    expect(values(y)).toEqual([1, 2, 3, 4, 5, 5]);
    const m = arange(9).to('float64').reshape([3, 3]);
    m.add_(m.T);
    expect(values(m)).toEqual([0, 4, 8, 4, 8, 12, 8, 12, 16]);
    const z = ones([3], { dtype: 'float64' });
    z.mul_(z.select(0, 0).mul_(4));
    expect(values(z)).toEqual([16, 4, 4]);
  });

  it('that repeat elements are refused', () => {
    const x = f64([[1], [2]]);
    expect(thrownBy(() => x.expand([2, 3]).add_(1))).toBeInstanceOf(ShapeError);
    expect(thrownBy(() => f64(1).expand([2]).zero_())).toBeInstanceOf(ShapeError);
    expect(values(x)).toEqual([1, 2]);
    x.expand([2, 1]).add_(1);
    expect(values(x)).toEqual([2, 3]);
  });
});

describe('an optimizer step', () => {
  it('between two backward passes of a retained graph is noticed', () => {
    const [w1, w2] = [
      leaf([
        [1, 2],
        [3, 4],
      ]),
      leaf([[1], [1]]),
    ];
    const optimizer = new optim.SGD([w1, w2], { lr: 0.1 });
    const loss = ones([1, 2], { dtype: 'float64' }).matmul(w1).tanh().matmul(w2).sum();
    loss.backward(null, { retainGraph: true });
    optimizer.step();
    const error = thrownBy(() => loss.backward());
    expect(error).toBeInstanceOf(AutogradError);
    expect((error as Error).message).toMatch(/MmBackward.*version 0.*at 1/);
  });
});
