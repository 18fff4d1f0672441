// Modules: how they find their parts, keep state, call hooks, contain one another.
import { describe, expect, it } from 'vitest';
import { nn, randn, scope, type Tensor, tensor, zeros } from '../lib/index.ts';

const values = (t: Tensor): number[] => Array.from(t.detach().to('float64').toTypedArray());

class Net extends nn.Module {
  readonly first = new nn.Linear(3, 4);
  readonly blocks = [new nn.Linear(4, 4), new nn.Linear(4, 4, { bias: false })];
  readonly last = new nn.Sequential(new nn.ReLU(), new nn.Linear(4, 2));

  override forward(x: Tensor): Tensor {
    let y = this.first.call(x);
    for (const block of this.blocks) y = block.call(y);
    return this.last.call(y);
  }
}

const NAMES = [
  'first.weight',
  'first.bias',
  'blocks.0.weight',
  'blocks.0.bias',
  'blocks.1.weight',
  'last.1.weight',
  'last.1.bias',
];

describe('Module', () => {
  it('finds parameters in its own properties, arrays too, in the order of assignment', () => {
    const net = new Net();
    expect([...net.namedParameters()].map(([name]) => name)).toEqual(NAMES);
    expect([...net.stateDict().keys()]).toEqual(NAMES);
    expect([...net.parameters()].every((p) => p instanceof nn.Parameter && p.requiresGrad && p.isLeaf)).toBe(true);
    expect([...net.namedModules()].map(([name]) => name)).toEqual([
      '',
      'first',
      'blocks.0',
      'blocks.1',
      'last',
      'last.0',
      'last.1',
    ]);
    expect([...net.namedChildren()].map(([name]) => name)).toEqual(['first', 'blocks.0', 'blocks.1', 'last']);
  });

  it('takes a plain tensor for data, not for a parameter or state', () => {
    class Scaled extends nn.Module {
      readonly factor = tensor([2]);
      readonly shift = new nn.Parameter(tensor([1]));
      override forward(x: Tensor): Tensor {
        return x.mul(this.factor).add(this.shift);
      }
    }
    expect([...new Scaled().stateDict().keys()]).toEqual(['shift']);
    expect(values(new Scaled().call(tensor([3])))).toEqual([7]);
  });

  it('lists a shared parameter once, but saves it under every name', () => {
    class Tied extends nn.Module {
      readonly a = new nn.Linear(2, 2, { bias: false });
      readonly b = this.a;
      readonly weight = this.a.weight;
      override forward(x: Tensor): Tensor {
        return this.b.call(this.a.call(x));
      }
    }
    const tied = new Tied();
    expect([...tied.namedParameters()].map(([name]) => name)).toEqual(['weight']);
    expect([...tied.modules()]).toHaveLength(2);
    expect([...tied.stateDict().keys()].sort()).toEqual(['a.weight', 'b.weight', 'weight']);
    const double = tied.to('float64');
    expect(double.a.weight.dtype).toBe('float64');
    expect(double.weight).toBe(double.a.weight);
  });

  it('is not confused by a reference to its parent', () => {
    class Child extends nn.Module {
      parent: nn.AnyModule | null = null;
      readonly weight = new nn.Parameter(zeros([1]));
      override forward(x: Tensor): Tensor {
        return x;
      }
    }
    const child = new Child();
    child.parent = new nn.Sequential(child);
    expect([...child.parent.stateDict().keys()]).toEqual(['0.weight']);
    expect([...child.modules()]).toHaveLength(2);
  });

  it('walks 100,000 levels of nesting', () => {
    let model: nn.Module = new nn.Linear(1, 1, { bias: false });
    for (let i = 0; i < 100_000; i++) model = new nn.Sequential(model);
    expect([...model.parameters()]).toHaveLength(1);
    const [name] = model.stateDict().keys();
    expect(name!.length).toBe(2 * 100_000 + 'weight'.length);
    model.eval();
  });

  it('passes train and eval down, and apply to each module', () => {
    const net = new Net();
    expect(net.eval()).toBe(net);
    expect([...net.modules()].some((module) => module.training)).toBe(false);
    net.train();
    expect([...net.modules()].every((module) => module.training)).toBe(true);
    const visited: nn.AnyModule[] = [];
    net.apply((module) => visited.push(module));
    expect(visited).toEqual([...net.modules()].reverse());
  });

  it('calls forward hooks in order, and lets them replace the output', () => {
    const layer = new nn.Identity();
    const seen: number[] = [];
    const removeFirst = layer.registerForwardHook(([x], y) => {
      seen.push(values(x)[0]!);
      return y.add(1);
    });
    layer.registerForwardHook((_, y) => void seen.push(values(y)[0]!));
    expect(values(layer.call(tensor([5])))).toEqual([6]);
    expect(seen).toEqual([5, 6]);
    removeFirst();
    expect(values(layer.call(tensor([5])))).toEqual([5]);
    expect(values(layer.forward(tensor([1])))).toEqual([1]);
    expect(seen).toEqual([5, 6, 5]);
  });

  it('keeps buffers in the state if persistent, and converts them', () => {
    class Counter extends nn.Module {
      mean!: Tensor;
      count!: Tensor;
      scratch!: Tensor;
      constructor() {
        super();
        this.registerBuffer('mean', zeros([2]));
        this.registerBuffer('count', tensor([3], { dtype: 'int32' }));
        this.registerBuffer('scratch', zeros([1]), { persistent: false });
      }
      override forward(x: Tensor): Tensor {
        return x.sub(this.mean);
      }
    }
    const counter = new Counter().to('float64');
    expect([...counter.parameters()]).toEqual([]);
    expect([...counter.stateDict().keys()]).toEqual(['mean', 'count']);
    expect([counter.mean.dtype, counter.count.dtype, counter.scratch.dtype]).toEqual(['float64', 'int32', 'float64']);
  });

  it('converts in place and keeps values, names and whether a gradient is wanted', () => {
    const net = new Net();
    net.first.weight.requiresGrad_(false);
    const before = values(net.first.weight);
    net.to('float64');
    expect([...net.namedParameters()].map(([name]) => name)).toEqual(NAMES);
    expect([...net.parameters()].every(({ dtype }) => dtype === 'float64')).toBe(true);
    expect(values(net.first.weight)).toEqual(before);
    expect(net.first.weight.requiresGrad).toBe(false);
    expect(net.first.bias!.requiresGrad).toBe(true);
    expect(net.call(zeros([1, 3], { dtype: 'float64' })).dtype).toBe('float64');
  });

  it('zeroGrad leaves no gradient', () => {
    const net = new Net();
    net
      .call(randn([5, 3]))
      .sum()
      .backward();
    expect([...net.parameters()].every(({ grad }) => grad !== null)).toBe(true);
    net.zeroGrad();
    expect([...net.parameters()].every(({ grad }) => grad === null)).toBe(true);
  });

  it('survives being made in a scope that returns it', () => {
    const net = scope(() => new Net());
    expect(net.call(zeros([2, 3])).shape).toEqual([2, 2]);
  });
});

describe('loadStateDict', () => {
  it('copies the values, of a map or an object', () => {
    const [from, to, third] = [new Net(), new Net(), new Net()];
    const x = randn([4, 3]);
    expect(values(to.call(x))).not.toEqual(values(from.call(x)));
    to.loadStateDict(from.stateDict());
    third.loadStateDict(Object.fromEntries(from.stateDict()));
    expect(values(to.call(x))).toEqual(values(from.call(x)));
    expect(values(third.call(x))).toEqual(values(from.call(x)));
    to.first.weight.detach().fill_(0);
    expect(values(from.first.weight)).not.toEqual(values(to.first.weight));
  });

  it('lists everything missing, unexpected and mismatched, and changes nothing', () => {
    const net = new Net();
    const state = new Net().stateDict();
    state.delete('first.bias');
    state.delete('last.1.bias');
    state.set('extra', zeros([1]));
    state.set('blocks.0.weight', zeros([4, 5]));
    state.set('blocks.0.bias', zeros([4], { dtype: 'float64' }));
    const before = [...net.stateDict().values()].map(values);
    expect(() => net.loadStateDict(state)).toThrow(
      'loadStateDict: Net: missing: first.bias, last.1.bias; unexpected: extra; mismatched: ' +
        'blocks.0.weight (is float32[4,4], loading float32[4,5]), blocks.0.bias (is float32[4], loading float64[4])',
    );
    expect(() => net.loadStateDict(state, { strict: false })).toThrow('blocks.0.weight (is float32[4,4]');
    state.get('first.weight')!.dispose();
    expect(() => net.loadStateDict(state, { strict: false })).toThrow('the first.weight of shape [4,3] was disposed');
    state.set('first.weight', zeros([4, 3]));
    expect([...net.stateDict().values()].map(values)).toEqual(before);

    state.delete('blocks.0.weight');
    state.delete('blocks.0.bias');
    net.loadStateDict(state, { strict: false });
    expect(values(net.first.weight)).toEqual(values(state.get('first.weight')!));
    expect(values(net.first.bias!)).toEqual(before[1]);
  });
});

describe('containers', () => {
  it('Sequential chains its modules, which may be replaced by index', () => {
    const model = new nn.Sequential(new nn.Linear(2, 3), new nn.Tanh());
    const x = randn([5, 2]);
    expect(values(model.call(x))).toEqual(values((model[0] as nn.Linear).call(x).tanh()));
    expect([...model.namedParameters()].map(([name]) => name)).toEqual(['0.weight', '0.bias']);
    model[1] = new nn.Identity();
    expect(values(model.call(x))).toEqual(values(model[0]!.call(x)));
    expect(model.append(new nn.ReLU()).length).toBe(3);
    expect(new nn.Sequential().call(x)).toBe(x);
  });

  it('ModuleList holds modules and has no forward', () => {
    const list = new nn.ModuleList([new nn.Linear(1, 2), new nn.Linear(2, 1)]);
    expect([...list.stateDict().keys()]).toEqual(['0.weight', '0.bias', '1.weight', '1.bias']);
    expect(list.length).toBe(2);
    expect([...list]).toEqual([list[0], list[1]]);
    expect(() => list.call()).toThrow('ModuleList has no forward');
  });
});
