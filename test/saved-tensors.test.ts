// What ops save for the backward pass: which tensors, how many bytes; and hooks that keep them elsewhere.
import { describe, expect, it } from 'vitest';
import {
  ArgumentError,
  AutogradError,
  autograd,
  checkpoint,
  grad,
  hessian,
  hvp,
  isGradEnabled,
  jvp,
  type Node,
  nn,
  noGrad,
  randn,
  savedTensorsHooks,
  scope,
  type Tensor,
  tensor,
  vmap,
} from '../lib/index.ts';
import { bitsOf, f64, gradOf, leaf, runScript, thrownBy, values } from './support.ts';

/** All nodes of a graph. */
function nodesOf(y: Tensor): Node[] {
  const found = new Set<Node>();
  const visit = (node: Node | null): void => {
    if (node === null || found.has(node)) return;
    found.add(node);
    node.nextFunctions.forEach(visit);
  };
  visit(y.gradFn);
  return [...found];
}
/** What the graph of y saves beside `known`, in bytes; each storage once. */
function savedBytes(y: Tensor, known: readonly Tensor[]): number {
  const storages = new Set(known.map((t) => t.storage));
  return nodesOf(y)
    .flatMap((node) => node.savedTensors)
    .reduce((sum, t) => {
      const counted = storages.has(t.storage);
      storages.add(t.storage);
      return sum + (counted ? 0 : t.nbytes);
    }, 0);
}

describe('an op saves what its gradient reads, and no more', () => {
  const x = leaf([
    [1, 2],
    [3, 4],
  ]);
  const w = leaf([
    [5, 6],
    [7, 8],
  ]);
  const data = f64([
    [1, 1],
    [2, 2],
  ]);
  const vector = leaf([1, -1]);
  // The output is 'y', inputs are named by their place.
  it.each<[string, (a: Tensor, b: Tensor) => Tensor, Tensor, Tensor, string[]]>([
    ['x * 2', (a) => a.mul(2), x, w, []],
    ['x + w', (a, b) => a.add(b), x, w, []],
    ['x - 1', (a) => a.sub(1), x, w, []],
    ['sum', (a) => a.sum(), x, w, []],
    ['mean', (a) => a.mean(0), x, w, []],
    ['reshape', (a) => a.reshape([4]), x, w, []],
    ['transpose', (a) => a.T, x, w, []],
    ['expand', (a) => a.reshape([2, 2, 1]).expand([2, 2, 3]), x, w, []],
    ['neg', (a) => a.neg(), x, w, []],
    ['x ** 2', (a) => a.pow(2), x, w, ['a']],
    ['square', (a) => a.square(), x, w, ['a']],
    ['log', (a) => a.log(), x, w, ['a']],
    ['sin', (a) => a.sin(), x, w, ['a']],
    ['exp', (a) => a.exp(), x, w, ['y']],
    ['tanh', (a) => a.tanh(), x, w, ['y']],
    ['sigmoid', (a) => a.sigmoid(), x, w, ['y']],
    ['sqrt', (a) => a.sqrt(), x, w, ['y']],
    ['relu', (a) => a.relu(), x, w, ['y']],
    ['softmax', (a) => a.softmax(1), x, w, ['y']],
    ['logSoftmax', (a) => a.logSoftmax(1), x, w, ['y']],
    ['x * w, both', (a, b) => a.mul(b), x, w, ['a', 'b']],
    ['x * data', (a, b) => a.mul(b), x, data, ['b']],
    ['data * w', (a, b) => a.mul(b), data, w, ['a']],
    ['matmul, both', (a, b) => a.matmul(b), x, w, ['a', 'b']],
    ['matmul, data first', (a, b) => a.matmul(b), data, w, ['a']],
    ['matmul, data second', (a, b) => a.matmul(b), x, data, ['b']],
    ['mv, data first', (a, b) => a.mv(b), data, vector, ['a']],
    ['bias of a linear layer', (a, b) => data.linear(data, b).add(a.sum()), x, vector, []],
  ])('%s', (_, f, a, b, expected) => {
    const y = f(a, b);
    const names = new Map([
      [y.storage, 'y'],
      [a.storage, 'a'],
      [b.storage, 'b'],
    ]);
    const saved = nodesOf(y).flatMap((node) => node.savedTensors.map((t) => names.get(t.storage) ?? `${t.shape}`));
    expect(saved.sort()).toEqual(expected);
    expect(savedBytes(y, [a, b])).toBe(expected.includes('y') ? y.nbytes : 0);
  });

  it('structured ops save indices and weights, not results', () => {
    const image = randn([2, 3, 8, 8], { requiresGrad: true });
    const kernel = randn([4, 3, 3, 3], { requiresGrad: true });
    const frozen = kernel.detach();
    expect(savedBytes(image.conv2d(kernel), [image, kernel])).toBe(0);
    expect(nodesOf(image.conv2d(frozen)).flatMap((node) => node.savedTensors.map((t) => t.storage))).toEqual([
      frozen.storage,
    ]);
    const pooled = image.maxPool2d(2);
    expect(savedBytes(pooled, [image])).toBeLessThanOrEqual(pooled.numel * 4);
    const [largest] = image.max(1);
    expect(savedBytes(largest!, [image])).toBeLessThanOrEqual(largest!.numel * 4);
    expect(savedBytes(image.cumsum(1), [image])).toBe(0);
    expect(savedBytes(image.dropout(0.5, { training: true }), [image])).toBeLessThanOrEqual(image.nbytes);
    expect(savedBytes(image.select(0, 1).narrow(0, 1, 2).sum([0, 1]), [])).toBe(0);
    const table = randn([100, 8], { requiresGrad: true });
    const index = tensor([3, 3, 7], { dtype: 'int32' });
    expect(savedBytes(table.indexSelect(0, index), [index])).toBe(0);
  });

  it('of an MLP: input, hidden values, masks and the second weight', () => {
    const [first, second] = [new nn.Linear(4, 8), new nn.Linear(8, 3)];
    const data1 = randn([16, 4]);
    const y = second.call(first.call(data1).relu());
    // relu saves its output, which is the input of the second layer: one tensor.
    expect(savedBytes(y, [data1, ...first.parameters(), ...second.parameters()])).toBe(16 * 8 * 4);
    expect(noGrad(() => second.call(first.call(data1))).gradFn).toBeNull();
  });
});

interface Log {
  packed: number[][];
  unpacked: number;
}
/** Runs fn with hooks that keep values as arrays. */
function asArrays<T>(fn: () => T, log: Log = { packed: [], unpacked: 0 }): T {
  const pack = (t: Tensor): { data: number[]; shape: readonly number[]; dtype: 'float64' } => {
    log.packed.push(values(t));
    return { data: values(t), shape: t.shape, dtype: t.dtype as 'float64' };
  };
  return savedTensorsHooks(
    pack,
    ({ data, shape, dtype }) => {
      log.unpacked++;
      return tensor(data, { shape: [...shape], dtype });
    },
    fn,
  );
}

describe('savedTensorsHooks', () => {
  const f = (x: Tensor): Tensor => x.exp().mul(x).sin();

  it('packs what is saved, with its values, and unpacks once for each use', () => {
    const log: Log = { packed: [], unpacked: 0 };
    const x = leaf([0.5, 2]);
    const y = asArrays(() => f(x), log);
    const e = values(x.exp());
    expect(log.packed).toEqual([e, e, [0.5, 2], values(x.exp().mul(x))]);
    expect(log.unpacked).toBe(0);
    const expected = values(grad(f(x).sum(), x)[0]!);
    for (const times of [1, 2, 3]) {
      expect(values(grad(y.sum(), x, { retainGraph: times < 3 })[0]!)).toEqual(expected);
      expect(log.unpacked).toBe(4 * times);
    }
    expect(thrownBy(() => y.sum().backward())).toMatchObject({ message: expect.stringMatching(/freed/) });
    // Outside of fn nothing is packed.
    f(x).sum().backward();
    expect(log.packed).toHaveLength(4);
  });

  it('is not called for what is not saved', () => {
    const log: Log = { packed: [], unpacked: 0 };
    asArrays(() => {
      noGrad(() => f(leaf([1])));
      f(f64([1]));
      leaf([1]).mul(2).sum();
    }, log);
    expect(log.packed).toEqual([]);
  });

  it('gives derivatives of every kind', () => {
    const x = leaf([0.5, 2]);
    const second = (y: Tensor): number[] => {
      const [g] = grad(y.sum(), x, { createGraph: true });
      return values(grad(g!.square().sum(), x)[0]!);
    };
    expect(second(asArrays(() => f(x)))).toEqual(second(f(x)));
    const [p, v] = [f64([0.5, 2]), f64([1, -1])];
    const scalar = (a: Tensor): Tensor => f(a).sum();
    const hooked = (a: Tensor): Tensor =>
      savedTensorsHooks(
        (t) => t,
        (t) => t,
        () => scalar(a),
      );
    expect(values(hvp(hooked, p, v))).toEqual(values(hvp(scalar, p, v)));
    expect(values(hvp((a) => asArrays(() => scalar(a)), p, v))).toEqual(values(hvp(scalar, p, v)));
    expect(values(hessian(hooked, p))).toEqual(values(hessian(scalar, p)));
    expect(values(jvp((a) => asArrays(() => f(a)), p, v)[1])).toEqual(values(jvp(f, p, v)[1]));
    const batch = leaf([
      [0.5, 2],
      [1, -1],
    ]);
    const mapped = (run: (a: Tensor) => Tensor): number[] => values(grad(vmap(run)(batch).sum(), batch)[0]!);
    expect(mapped(hooked)).toEqual(mapped(scalar));
  });

  it('of Functions, checkpoints and layers', () => {
    class Cube extends autograd.Function {
      static forward(ctx: autograd.FunctionContext, x: Tensor): Tensor {
        ctx.saveForBackward(x);
        return x.pow(3);
      }
      static backward(ctx: autograd.FunctionContext, g: Tensor): Tensor {
        return g.mul(ctx.savedTensors[0]!.square()).mul(3);
      }
    }
    const x = leaf([0.5, 2]);
    const log: Log = { packed: [], unpacked: 0 };
    asArrays(() => Cube.apply(x), log)
      .sum()
      .backward();
    expect([log.packed, gradOf(x)]).toEqual([[[0.5, 2]], [0.75, 12]]);
    // A checkpoint inside gives the hooks its inputs; one around gets what they are given.
    const plain = values(grad(f(f(x)).sum(), x)[0]!);
    expect(values(grad(asArrays(() => checkpoint(f, f(x))).sum(), x)[0]!)).toEqual(plain);
    expect(values(grad(checkpoint((a: Tensor) => asArrays(() => f(f(a))), x).sum(), x)[0]!)).toEqual(plain);
    const layer = new nn.Sequential(new nn.Conv2d(1, 2, 3), new nn.BatchNorm2d(2), new nn.GELU());
    const image = randn([2, 1, 6, 6]);
    const run = (forward: () => Tensor): string[] => {
      layer.zeroGrad();
      forward().square().sum().backward();
      return [...layer.parameters()].map((p) => bitsOf(p.grad!));
    };
    expect(run(() => asArrays(() => layer.call(image)))).toEqual(run(() => layer.call(image)));
  });

  it('the innermost hooks are called, and their own ops are neither packed nor recorded', () => {
    const x = leaf([0.5, 2]);
    const names: string[] = [];
    const named = (name: string, fn: () => Tensor): Tensor =>
      savedTensorsHooks(
        (t) => {
          names.push(`${name}${isGradEnabled() ? ' records' : ''}`);
          return t.mul(2).exp();
        },
        (t) => t.log().div(2),
        fn,
      );
    const y = named('outer', () => named('inner', () => x.exp()).add(x.square()));
    expect(names).toEqual(['inner', 'outer']);
    y.sum().backward();
    const expected = values(x.exp().add(x.mul(2)));
    gradOf(x).forEach((g, i) => void expect(g).toBeCloseTo(expected[i]!, 12));
  });

  it('may halve the bytes, at the cost of digits', () => {
    const x = leaf([0.5, 2]);
    const y = savedTensorsHooks(
      (t) => t.to('bfloat16'),
      (t) => t.to('float64'),
      () => x.square(),
    );
    y.sum().backward();
    expect(gradOf(x)).toEqual([1, 4]);
  });

  it('what pack returns outlives the scope of the forward pass, as the graph does', () => {
    const x = leaf([0.5, 2]);
    for (const pack of [(t: Tensor) => t.to('bfloat16'), (t: Tensor) => t, (t: Tensor) => t.clone()]) {
      const y = scope(() =>
        savedTensorsHooks(
          pack,
          (t) => t.to('float64'),
          () => x.mul(1).square(),
        ),
      );
      expect(grad(y.sum(), x)[0]!.toArray()).toEqual([1, 4]);
    }
  });

  it('a value that was changed after packing is the old one', () => {
    const x = leaf([0.5, 2]);
    const a = x.mul(1);
    const y = asArrays(() => a.square());
    a.add_(1);
    y.sum().backward();
    expect(gradOf(x)).toEqual([1, 4]);
  });

  it('errors name what is wrong, and nothing stays switched', () => {
    const x = leaf([0.5, 2]);
    const unpacking = (value: unknown): Error => {
      const y = savedTensorsHooks(
        () => null,
        () => value as Tensor,
        () => x.square(),
      );
      return thrownBy(() => y.sum().backward()) as Error;
    };
    expect(unpacking(f64([1]))).toBeInstanceOf(AutogradError);
    expect(unpacking(f64([1])).message).toMatch(/SquareBackward: the unpack hook.*\[1\].*\[2\]/s);
    expect(unpacking(tensor([1, 2])).message).toMatch(/float32/);
    expect(unpacking(7)).toBeInstanceOf(ArgumentError);
    for (const hooks of [
      [3, (t: Tensor) => t],
      [(t: Tensor) => t, null],
    ]) {
      expect(thrownBy(() => savedTensorsHooks(hooks[0] as never, hooks[1] as never, () => x))).toBeInstanceOf(
        ArgumentError,
      );
    }
    const stop = new Error('full');
    const full = (): never => {
      throw stop;
    };
    expect(thrownBy(() => scope(() => savedTensorsHooks(full, full, () => x.square())))).toBe(stop);
    expect([isGradEnabled(), x.square().gradFn!.savedTensors.length]).toEqual([true, 1]);
    const y = savedTensorsHooks(
      (t) => t,
      full,
      () => x.square(),
    );
    expect(thrownBy(() => y.sum().backward())).toBe(stop);
    expect(x.grad).toBeNull();
  });

  it('follows the awaits of an async function', async () => {
    const x = leaf([0.5, 2]);
    const log: Log = { packed: [], unpacked: 0 };
    const y = await asArrays(async () => {
      await null;
      return x.square();
    }, log);
    y.sum().backward();
    expect([log, gradOf(x)]).toEqual([{ packed: [[0.5, 2]], unpacked: 1 }, [1, 4]]);
  });
});

describe('the example examples/offload', () => {
  it('keeps saved tensors on disk: the same gradients, less memory, nothing left', async () => {
    const { code, stdout, stderr } = await runScript('examples/offload/main.ts');
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout).toMatch(/files written: 12; same bits: true/);
    for (const what of ['between the passes', 'at the peak']) {
      const [, inMemory, offloaded] = new RegExp(`${what}: +([\\d.]+) MiB in memory, +([\\d.]+) MiB offloaded`).exec(
        stdout,
      )!;
      expect(Number(offloaded), what).toBeLessThan(0.6 * Number(inMemory));
    }
    expect(stdout).toMatch(/files left: 0/);
  });
});
