// What a compiled function cannot repeat is an error that says so, or has a meaning that is stated: a test each.
import { describe, expect, it } from 'vitest';
import {
  ArgumentError,
  AutogradError,
  CaptureError,
  compile,
  data,
  detectAnomaly,
  keep,
  manualSeed,
  nn,
  noGrad,
  optim,
  randn,
  randperm,
  ShapeError,
  scope,
  type Tensor,
  tensor,
  vmap,
} from '../lib/index.ts';
import { bitsOf, leaf, thrownBy, values } from './support.ts';

const x = tensor([1, 2, 3]);

describe('while recording', () => {
  it.each<[string, () => unknown]>([
    ['item', () => x.sum().item()],
    ['toArray', () => x.mul(2).toArray()],
    ['toTypedArray of a tensor from outside', () => x.toTypedArray()],
    ['printing', () => String(x)],
    ['a branch on a value', () => (Number(x.sum().item()) > 0 ? x : x.neg())],
    ['data from JavaScript', () => x.add(tensor([1, 2, 3]))],
    ['a batch from a loader', () => [...new data.DataLoader(new data.TensorDataset(x), { batchSize: 2 })]],
    ['an order drawn in JavaScript', () => randperm(3)],
    ['clipGradNorm_', () => nn.utils.clipGradNorm_([x], 1)],
    ['a look for NaN', () => detectAnomaly(() => leaf([1]).mul(2).sum().backward())],
  ])('%s is a CaptureError', (_, fn) => {
    const compiled = compile(fn);
    for (let i = 0; i < 2; i++) expect(compiled).toThrow(CaptureError);
  });

  it('an error of the function passes through, and leaves no trace', () => {
    const w = leaf([1, 2, 3]);
    const optimizer = new optim.Adam([w], { lr: 0.1 });
    let fail = true;
    const step = compile((t: Tensor) => {
      optimizer.zeroGrad();
      w.mul(t).sum().backward();
      optimizer.step();
      const drawn = randn([3]);
      if (fail) throw new RangeError('half-way');
      return drawn;
    });
    manualSeed(5);
    const input = tensor([1, 1, 1], { dtype: 'float64' });
    expect(() => step(input)).toThrow(RangeError);
    expect(w.grad).toBeNull();
    expect(values(w)).toEqual([1, 2, 3]);
    expect(optimizer.stateDict().state.get(0)?.step ?? 0).toBe(0);
    fail = false;
    const drawn = step(input);
    manualSeed(5);
    expect(values(drawn)).toEqual(values(randn([3])));
    expect(optimizer.stateDict().state.get(0)!.step).toBe(1);
  });

  it('errors of ops are those of ordinary calls', () => {
    expect(() => compile((t: Tensor) => t.add(tensor([1, 2]).detach()))(x)).toThrow(CaptureError);
    const other = randn([2]);
    expect(() => compile((t: Tensor) => t.add(other))(x)).toThrow(ShapeError);
  });

  it('an async function, and one that returns a promise, are refused', () => {
    expect(() => compile(async () => x)).toThrow(CaptureError);
    expect(() => compile(() => Promise.resolve(x))()).toThrow(CaptureError);
    expect(() => compile(3 as never)).toThrow(ArgumentError);
    expect(() => compile(() => x, { maxRecordings: 0 })).toThrow(ArgumentError);
    expect(() => compile(() => x, { recordings: 1 } as never)).toThrow(ArgumentError);
  });

  it('a compiled function inside another is a part of it', () => {
    const inner = compile((t: Tensor) => t.mul(2));
    const outer = compile((t: Tensor) => inner(t).add(1));
    for (let i = 0; i < 3; i++) expect(values(outer(tensor([i])))).toEqual([2 * i + 1]);
    expect(inner.explain().programs).toEqual([]);
    expect(values(inner(x))).toEqual([2, 4, 6]);
  });

  it('an optimizer cannot be made inside', () => {
    const w = leaf([1]);
    expect(() => compile(() => new optim.SGD([w], { lr: 0.1 }))()).toThrow(CaptureError);
  });

  it('scopes inside free what they free', () => {
    const f = compile((t: Tensor) => scope(() => t.add(1).mul(2).sub(3)));
    for (let i = 0; i < 3; i++) expect(values(f(x))).toEqual([1, 3, 5]);
    expect(values(scope(() => keep(f(x))))).toEqual([1, 3, 5]);
  });
});

describe('arguments', () => {
  it('in objects that are more than trees are refused', () => {
    class Batch {
      x = x;
    }
    for (const argument of [new Map([['x', x]]), new Batch(), [{ deep: new Set([x]) }]]) {
      expect(() => compile((_: unknown) => x.mul(2))(argument)).toThrow(/an argument has a (Map|Batch|Set) in it/);
      expect(() => compile(() => argument)()).toThrow(CaptureError);
    }
  });

  it('the same tensor twice is fine to read, and an error to write', () => {
    const add = compile((a: Tensor, b: Tensor) => a.add(b));
    expect(values(add(x, x))).toEqual([2, 4, 6]);
    expect(values(add(x, tensor([1, 1, 1])))).toEqual([2, 3, 4]);
    const write = compile((a: Tensor, b: Tensor) => {
      a.add_(1);
      return b.mul(2);
    });
    const t = tensor([1, 2]);
    expect(values(write(tensor([1, 2]), t))).toEqual([2, 4]);
    expect(() => write(t, t)).toThrow(/arguments 0 and 1 share memory/);
    expect(() => write(t, t.narrow(0, 0, 2))).toThrow(CaptureError);
    expect(values(t)).toEqual([1, 2]);
  });

  it('an argument is not what the function closed over, even if it is the same tensor', () => {
    const w = tensor([1, 2, 3]);
    const f = compile((t: Tensor) => t.mul(w));
    expect(values(f(w))).toEqual([1, 4, 9]);
    expect(values(f(tensor([1, 1, 1])))).toEqual([1, 2, 3]);
  });

  it('that gradients would have to leave through are refused', () => {
    const w = leaf([1, 2]);
    const f = compile((t: Tensor) => t.mul(2));
    expect(() => f(w.mul(3))).toThrow(CaptureError);
    expect(values(f(w.mul(3).detach()))).toEqual([6, 12]);
    expect(() => compile((t: Tensor) => t.sum().backward())(w)).toThrow(/another tensor in each call/);
    expect(w.grad).toBeNull();
    expect(() => vmap((t: Tensor) => f(t))(randn([2, 2], { dtype: 'float64' }))).toThrow(AutogradError);
  });

  it('disposed, or disposed by the function, is an error', () => {
    const f = compile((t: Tensor) => t.mul(2));
    const gone = tensor([1, 2]);
    gone.dispose();
    expect(() => f(gone)).toThrow(/was disposed/);
    f(tensor([1, 2]));
    expect(() => f(gone)).toThrow(/was disposed/);
    const t = tensor([1, 2]);
    expect(() =>
      compile((a: Tensor) => {
        a.dispose();
      })(t),
    ).toThrow(CaptureError);
    expect(values(t)).toEqual([1, 2]);
  });
});

describe('what a function finds outside', () => {
  it('is read anew in each call', () => {
    const w = tensor([1, 2]);
    const f = compile((t: Tensor) => t.mul(w));
    expect(values(f(tensor([3, 3])))).toEqual([3, 6]);
    w.fill_(10);
    expect(values(f(tensor([3, 3])))).toEqual([30, 30]);
  });

  it('must not be disposed', () => {
    const w = tensor([1, 2]);
    const f = compile((t: Tensor) => t.mul(w));
    f(tensor([3, 3]));
    w.dispose();
    expect(() => f(tensor([3, 3]))).toThrow(/of shape \[2\] that the function uses was disposed/);
  });

  it('stays alive for the program when nobody else holds it', () => {
    let w: Tensor | null = tensor([1, 2]);
    const held = w;
    const f = compile((t: Tensor) => t.mul(held));
    f(tensor([3, 3]));
    w = null;
    globalThis.gc!();
    expect(values(f(tensor([3, 3])))).toEqual([3, 6]);
    expect(w).toBeNull();
  });

  it('of a module may be replaced: recorded again', () => {
    const model = new nn.Linear(2, 2);
    const f = compile((t: Tensor) => model.call(t));
    const input = randn([1, 2]);
    f(input);
    model.to('float64');
    expect(f(input.double()).dtype).toBe('float64');
    Object.assign(model, { weight: new nn.Parameter(randn([3, 2], { dtype: 'float64' })), bias: null });
    expect(f(input.double()).shape).toEqual([1, 3]);
    expect(f.explain().retraces).toEqual([
      'argument 0 is float64[1,2], and was float32[1,2]',
      'weight of Linear has changed',
    ]);
  });

  it('of a module may change in other ways: recorded again', () => {
    class Net extends nn.Module {
      head: nn.Module = new nn.Linear(2, 2);
      double = false;
      calls = 0;
      forward(t: Tensor): Tensor {
        this.calls++;
        const y = this.head.call(t);
        return this.double ? y.mul(2) : y;
      }
    }
    const net = new Net();
    const f = compile((t: Tensor) => net.call(t));
    const input = randn([1, 2]);
    const same = (): void => {
      const expected = values(net.call(input));
      expect(values(f(input))).toEqual(expected);
      expect(values(f(input))).toEqual(expected);
    };
    same();
    net.double = true;
    same();
    net.head = new nn.Linear(2, 3);
    same();
    Object.assign(net.head, { bias: null });
    same();
    net.head.registerForwardHook((_, y) => (y as Tensor).mul(3));
    same();
    for (const p of net.parameters()) p.requiresGrad_(false);
    same();
    expect(f.explain().retraces).toHaveLength(5);
  });

  it('of a module may be changed by the function itself: that is no reason to record again', () => {
    const model = new nn.Sequential(new nn.Linear(2, 2), new nn.Dropout(0.5));
    const f = compile((t: Tensor) => {
      model.eval();
      const y = model.call(t);
      model.train();
      return y;
    });
    const input = randn([1, 2]);
    for (let i = 0; i < 3; i++) expect(values(f(input))).toEqual(values(model.eval().train().eval().call(input)));
    expect(f.explain().programs).toHaveLength(1);
  });

  it('that no longer requires grad is trained no more', () => {
    const [w, v] = [leaf([1]), leaf([1])];
    const optimizer = new optim.SGD([w, v], { lr: 1 });
    const step = compile(() => {
      optimizer.zeroGrad();
      w.add(v).sum().backward();
      optimizer.step();
    });
    step();
    v.requiresGrad_(false);
    step();
    expect([values(w), values(v)]).toEqual([[-1], [0]]);
  });

  it('of an optimizer may be loaded: recorded again', () => {
    const w = leaf([1, 2]);
    const optimizer = new optim.SGD([w], { lr: 0.5, momentum: 0.5 });
    const step = compile(() => {
      optimizer.zeroGrad();
      w.sum().backward();
      optimizer.step();
    });
    step();
    const saved = optimizer.stateDict();
    const state = {
      ...saved,
      state: new Map([[0, { ...saved.state.get(0)!, tensors: { momentumBuffer: w.clone() } }]]),
    };
    step();
    optimizer.loadStateDict(noGrad(() => state));
    const before = values(w);
    const buffer = values(state.state.get(0)!.tensors.momentumBuffer);
    step();
    expect(values(w)).toEqual(before.map((v, i) => v - 0.5 * (0.5 * buffer[i]! + 1)));
    expect(step.explain().retraces).toEqual(['state, options or groups of SGD are others']);
  });

  it('cannot be changed in place by a recorded op', () => {
    const h = leaf([1, 2]).mul(2);
    expect(() => compile(() => h.mul_(3))()).toThrow(CaptureError);
  });
});

describe('a run that fails', () => {
  it('does not count as an update', () => {
    const make = (): { optimizer: optim.Adam; step: (i: Tensor) => void; w: Tensor } => {
      const w = leaf([1, 2, 3], 'float32');
      const optimizer = new optim.Adam([w], { lr: 0.1 });
      const step = (i: Tensor): void => {
        optimizer.zeroGrad();
        w.indexSelect(0, i).sum().backward();
        optimizer.step();
      };
      return { optimizer, step, w };
    };
    const [plain, compiled] = [make(), make()];
    const step = compile(compiled.step);
    const [good, bad] = [
      [0, 1],
      [0, 9],
    ].map((i) => tensor(i, { dtype: 'int32' })) as [Tensor, Tensor];
    for (const i of [bad, good, bad, good, good]) {
      for (const run of [plain.step, step]) {
        if (i === bad) expect(() => run(i)).toThrow(/^indexSelect: index 9 at position 1 is outside \[0, 2\]/);
        else run(i);
      }
    }
    expect(compiled.optimizer.stateDict().state.get(0)!.step).toBe(3);
    expect(bitsOf(compiled.w)).toBe(bitsOf(plain.w));
  });
});

describe('what a function leaves behind', () => {
  it('and does not return has no value outside', () => {
    let leaked: Tensor | undefined;
    const f = compile((t: Tensor) => {
      leaked = t.mul(2);
      return leaked.add(1);
    });
    expect(values(f(x))).toEqual([3, 5, 7]);
    for (const use of [() => leaked!.item(), () => leaked!.add(1), () => x.mul(leaked!)]) {
      expect(thrownBy(use)).toBeInstanceOf(CaptureError);
    }
  });

  it('in the graph stays there: results have no history', () => {
    const w = leaf([1, 2]);
    const loss = compile(() => w.mul(2).sum())();
    expect(loss.requiresGrad).toBe(false);
    expect(() => loss.backward()).toThrow(AutogradError);
  });

  it('in JavaScript happens once', () => {
    let calls = 0;
    const f = compile((t: Tensor) => {
      calls++;
      return t.add(1);
    });
    for (let i = 0; i < 5; i++) f(x);
    expect(calls).toBe(1);
  });

  it('when it is recorded again and again, is a warning', async () => {
    const warnings: string[] = [];
    const listen = (warning: Error & { code?: string }): void =>
      void warnings.push(`${warning.code} ${warning.message}`);
    process.on('warning', listen);
    const f = compile((t: Tensor, by: number) => t.mul(by), { maxRecordings: 2 });
    for (let by = 0; by < 3; by++) expect(values(f(x, by))).toEqual([by, 2 * by, 3 * by].map((v) => v + 0));
    await new Promise((resolve) => setImmediate(resolve));
    process.off('warning', listen);
    expect(warnings).toEqual([expect.stringMatching(/^CHAINRULE_RECORDINGS .*recorded 3 times/)]);
    expect(f.explain().programs.length).toBe(2);
  });
});
