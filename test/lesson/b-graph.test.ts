// The lesson, B: the computational graph. R13 to R24 of the requirements, a test each.
import { describe, expect, it } from 'vitest';
import { autograd, cat, grad, type Node, nn, numericalDerivative, ones, type Tensor } from '../../lib/index.ts';
import { bitsOf, expectClose, f64, gradOf, leaf, values } from '../support.ts';
import { golden, isLeafNode, nodeOf, nodesOf, opNodes, report, TIGHT, timeOf, watch } from './lesson.ts';

/** y = (xw + b)² at the lesson's numbers, every step of it. */
function scalarGraph(): Record<'x' | 'w' | 'b' | 'z1' | 'z2' | 'y', Tensor> {
  const [x, w, b] = [leaf(2), leaf(3), leaf(1)];
  const z1 = x.mul(w);
  const z2 = z1.add(b);
  return { x, w, b, z1, z2, y: z2.square() };
}
const namesOf = (nodes: readonly (Node | null)[]): (string | undefined)[] => nodes.map((node) => node?.name);
const itemsOf = (ts: readonly Tensor[]): number[] => ts.map((t) => t.item());

describe('y = (xw + b)²', () => {
  it('R13: the forward pass gives 6, 7, 49', () => {
    const { z1, z2, y } = scalarGraph();
    expect(itemsOf([z1, z2, y])).toEqual([6, 7, 49]);
    const { z1: first, z2: second, y: last } = golden.scalar_graph;
    expect(itemsOf([z1, z2, y])).toEqual([first, second, last]);
  });

  it('R14: the local derivatives are 14, 1, 1, 3, 2', () => {
    const { x, w, b, z1, z2, y } = scalarGraph();
    const local = (out: Tensor, ...inputs: Tensor[]): number[] => itemsOf(grad(out, inputs, { retainGraph: true }));
    expect(local(y, z2)).toEqual([14]);
    expect(local(z2, z1, b)).toEqual([1, 1]);
    expect(local(z1, x, w)).toEqual([3, 2]);
  });

  it('R15: the gradients of b, w, x are 14, 28, 42', () => {
    const { x, w, b, y } = scalarGraph();
    y.backward();
    expect([gradOf(b), gradOf(w), gradOf(x)]).toEqual([[14], [28], [42]]);
    const { dy_db, dy_dw, dy_dx } = golden.scalar_graph;
    expect([gradOf(b), gradOf(w), gradOf(x)].flat()).toEqual([dy_db, dy_dw, dy_dx]);
  });

  it('R16: numeric derivatives agree to 4 decimals: 14.0000, 28.0000, 42.0000', () => {
    const numeric = [
      numericalDerivative((b) => (2 * 3 + b) ** 2, 1),
      numericalDerivative((w) => (2 * w + 1) ** 2, 3),
      numericalDerivative((x) => (x * 3 + 1) ** 2, 2),
    ];
    expect(numeric.map((slope) => slope.toFixed(4))).toEqual(['14.0000', '28.0000', '42.0000']);
    const { x, w, b, y } = scalarGraph();
    expect(itemsOf(grad(y, [b, w, x])).map((slope) => slope.toFixed(4))).toEqual(numeric.map((s) => s.toFixed(4)));
  });
});

describe('the graph', () => {
  it('R17: operations are nodes, tensors edges, from the loss to every leaf', () => {
    const { x, w, b, z1, z2, y } = scalarGraph();
    expect([x, w, b].map((t) => [t.gradFn, t.isLeaf])).toEqual(Array(3).fill([null, true]));
    expect(namesOf([y, z2, z1].map(nodeOf))).toEqual(['SquareBackward', 'AddBackward', 'MulBackward']);
    // An edge leads to the op that made the tensor.
    expect(nodeOf(y).nextFunctions).toEqual([nodeOf(z2)]);
    expect(nodeOf(z2).nextFunctions[0]).toBe(nodeOf(z1));
    expect(namesOf(nodeOf(z2).nextFunctions)).toEqual(['MulBackward', 'AccumulateGrad']);
    expect(namesOf(nodeOf(z1).nextFunctions)).toEqual(['AccumulateGrad', 'AccumulateGrad']);
    expect(nodesOf(y).filter(isLeafNode)).toHaveLength(3);
    // A graph, not a tree: a tensor used twice is one node, a number none.
    const shared = z1.sin();
    const twice = shared.mul(shared).add(x).mul(5);
    expect(namesOf(nodeOf(twice).nextFunctions)).toEqual(['AddBackward', undefined]);
    const [product, leafOfX] = nodeOf(twice).nextFunctions[0]!.nextFunctions;
    expect(product!.nextFunctions).toEqual([nodeOf(shared), nodeOf(shared)]);
    expect(leafOfX).toBe(nodeOf(z1).nextFunctions[0]);
    expect(nodesOf(twice)).toHaveLength(4 + 1 + 2);
    // Without cycles: no node is below itself.
    const below = (node: Node): Node[] => node.nextFunctions.flatMap((next) => (next ? [next, ...below(next)] : []));
    for (const node of nodesOf(twice)) expect(below(node)).not.toContain(node);
  });

  it('R18: each execution builds its own graph: if, for and recursion change it', () => {
    const branch = (x: Tensor): Tensor => (x.item() > 0 ? x.mul(3) : x.exp());
    const power = (x: Tensor, n: number): Tensor => {
      let y = x;
      for (let i = 1; i < n; i++) y = y.mul(x);
      return y;
    };
    const recurse = (x: Tensor): Tensor => (x.item() >= 10 ? x : recurse(x.square()));
    const slope = (f: (x: Tensor) => Tensor, at: number): [number, string[]] => {
      const x = leaf(at);
      const y = f(x);
      const names = opNodes(y).map((node) => node.name);
      y.backward();
      return [x.grad!.item(), names];
    };
    expect(slope(branch, 2)).toEqual([3, ['MulBackward']]);
    expect(slope(branch, 0)).toEqual([1, ['ExpBackward']]);
    for (const n of [2, 3, 6]) {
      expect(slope((x) => power(x, n), 2)).toEqual([n * 2 ** (n - 1), Array(n - 1).fill('MulBackward')]);
    }
    // 2 → 4 → 16 by two squares, 3 → 9 → 81, 11 by none.
    expect(slope((x) => recurse(x.mul(1)), 2)[0]).toBe(4 * 2 ** 3);
    expect(slope((x) => recurse(x.mul(1)), 11)).toEqual([1, ['MulBackward']]);
    expect(slope((x) => recurse(x.mul(1)), 3)[1]).toEqual(['SquareBackward', 'SquareBackward', 'MulBackward']);
  });

  it('R19: backward runs in reverse topological order, each node once, with the sum of what arrives', () => {
    const x = leaf(0.5);
    const top = x.mul(3);
    const [left, right] = [top.sin(), top.exp()];
    const bottom = left.mul(right);
    const arrived: number[] = [];
    nodeOf(top).registerHook((_, g) => void arrived.push(g.item()));
    const ran = watch(bottom);
    bottom.backward();
    expect(ran).toHaveLength(4);
    expect(new Set(ran)).toEqual(new Set([bottom, left, right, top].map(nodeOf)));
    ran.forEach((node, i) => {
      for (const next of node.nextFunctions) if (ran.includes(next!)) expect(ran.indexOf(next!)).toBeGreaterThan(i);
    });
    // Both branches had arrived when the top ran, once.
    expect(arrived).toHaveLength(1);
    expectClose(arrived, [(Math.cos(1.5) + Math.sin(1.5)) * Math.exp(1.5)], TIGHT);

    const start = leaf(1);
    let chain = start;
    for (let i = 0; i < 10_000; i++) chain = chain.neg().add(start);
    const visits = watch(chain);
    chain.backward();
    expect([visits.length, new Set(visits).size]).toEqual([20_000, 20_000]);
    // d = 1 - d, again and again: 1 - 1 + 1 - … + 1.
    expect(gradOf(start)).toEqual([1]);
  });

  it('R20: any input, parameter or intermediate can be differentiated for, leaving every grad alone', () => {
    const { x, w, b, z1, y } = scalarGraph();
    w.grad = f64(123);
    const bits = bitsOf(w.grad);
    expect(itemsOf(grad(y, [x], { retainGraph: true }))).toEqual([42]);
    expect(itemsOf(grad(y, [w], { retainGraph: true }))).toEqual([28]);
    expect(itemsOf(grad(y, [b, z1], { retainGraph: true }))).toEqual([14, 14]);
    expect(itemsOf(grad(y, [z1, w, x], { retainGraph: true }))).toEqual([14, 28, 42]);
    expect([x.grad, b.grad]).toEqual([null, null]);
    expect(bitsOf(w.grad)).toBe(bits);
  });

  it('R21: an op of the user joins with nothing but its own local derivative', () => {
    let pulled = 0;
    class Cube extends autograd.Function {
      static forward(ctx: autograd.FunctionContext, x: Tensor): Tensor {
        ctx.saveForBackward(x);
        return x.mul(x).mul(x);
      }
      static backward(ctx: autograd.FunctionContext, g: Tensor): Tensor {
        pulled++;
        return ctx.savedTensors[0]!.square().mul(3).mul(g);
      }
    }
    const at = [0.5, -1.5, 2];
    // Between built-in ops, on two paths, to second order: as if it were composed of them.
    const loss = (x: Tensor, cube: (t: Tensor) => Tensor): Tensor => cube(x.sin()).mul(cube(x)).add(x.exp()).sum();
    const derivatives = (cube: (t: Tensor) => Tensor): number[][] => {
      const x = leaf(at);
      const [first] = grad(loss(x, cube), x, { createGraph: true });
      return [values(first!), values(grad(first!.square().sum(), x)[0]!)];
    };
    const [own, builtIn] = [derivatives((x) => Cube.apply(x)), derivatives((x) => x.pow(3))];
    own.forEach((g, order) => void expectClose(g, builtIn[order]!, TIGHT, `order ${order + 1}`));
    expectClose(
      own[0]!,
      at.map((x) => 3 * Math.sin(x) ** 2 * Math.cos(x) * x ** 3 + Math.sin(x) ** 3 * 3 * x * x + Math.exp(x)),
      TIGHT,
    );
    // A call for each of its two uses, and again in second order: each is the other's upstream gradient.
    expect(pulled).toBe(4);
  });

  it('R22: ops save what a needed gradient reads, and nothing else', () => {
    const x = leaf([1, -2, 3, 4, 5]);
    const [a, b] = [leaf([[1, 2, 3]]), leaf([[1], [2], [3]])];
    const [plainA, plainB] = [a.detach(), b.detach()];
    const [e, r] = [x.exp(), x.relu()];
    const expected: [out: Tensor, saved: Tensor[], bytes: number][] = [
      [x.mul(2), [], 0],
      [x.add(x), [], 0],
      [x.sum(), [], 0],
      [x.neg(), [], 0],
      [x.pow(2), [x], 40],
      [x.sin(), [x], 40],
      [e, [e], 40],
      [r, [r], 40],
      [a.matmul(plainB), [plainB], 24],
      [plainA.matmul(b), [plainA], 24],
      [a.matmul(b), [a, b], 48],
    ];
    for (const [out, saved, bytes] of expected) {
      const { name, savedTensors } = nodeOf(out);
      expect(savedTensors, name).toEqual(saved);
      savedTensors.forEach((t, i) => void expect(t, name).toBe(saved[i]));
      expect(
        savedTensors.reduce((sum, t) => sum + t.nbytes, 0),
        name,
      ).toBe(bytes);
    }
    // The same list, of a whole graph.
    const loss = x.mul(2).exp().sum();
    expect(opNodes(loss).map((node) => [node.name, node.savedTensors.length])).toEqual([
      ['SumBackward', 0],
      ['ExpBackward', 1],
      ['MulBackward', 0],
    ]);
  });
});

describe('the cost of backward', () => {
  it('R23: backward runs as many nodes as forward recorded, however many paths there are', () => {
    const mlp = (depth: number): nn.Sequential =>
      new nn.Sequential(...Array.from({ length: depth }, () => [new nn.Linear(64, 64), new nn.ReLU()]).flat());
    const x = ones([32, 64]);
    const rows = [4, 8, 16].map((depth) => {
      const model = mlp(depth);
      const loss = model.call(x).square().mean();
      const recorded = opNodes(loss).length;
      const ran = watch(loss);
      loss.backward();
      expect(ran).toHaveLength(recorded);
      const forward = timeOf(() => model.call(x).square().mean());
      const both = timeOf(() => model.call(x).square().mean().backward());
      return { depth, recorded, ran: ran.length, 'backward / forward time': ((both - forward) / forward).toFixed(2) };
    });
    report('R23: the cost of backward, MLP of 64 units, 32 rows', rows);
    const grows = (i: number): number => (rows[i + 1]!.ran - rows[i]!.ran) / (rows[i + 1]!.depth - rows[i]!.depth);
    // A product with its bias and a relu for each layer: linear.
    expect([grows(0), grows(1)]).toEqual([2, 2]);

    const start = leaf(1);
    let diamonds = start;
    for (let i = 0; i < 50; i++) diamonds = diamonds.add(diamonds);
    const ran = watch(diamonds);
    diamonds.backward();
    expect([ran.length, start.grad!.item()]).toEqual([50, 2 ** 50]);
  });

  it('R24: it starts from ∂L/∂L = 1', () => {
    const x = leaf([1, 2, 3]);
    const loss = cat([x, x.mul(2)]).sum();
    const trace: [string, number[], number[]][] = [];
    for (const node of opNodes(loss)) {
      node.registerHook((_, g) => void trace.push([node.name, [...g.shape], values(g)]));
    }
    loss.backward(undefined, { retainGraph: true });
    expect(trace[0]).toEqual(['SumBackward', [], [1]]);
    expect(trace.map(([name]) => name)).toEqual(['SumBackward', 'CatBackward', 'MulBackward']);
    expect(gradOf(x)).toEqual([3, 3, 3]);
    // Another start scales all that follows.
    trace.length = 0;
    x.grad = null;
    loss.backward(f64(2.5));
    expect(trace.map(([, , g]) => g)).toEqual([[2.5], Array(6).fill(2.5), Array(3).fill(2.5)]);
    expect(gradOf(x)).toEqual([7.5, 7.5, 7.5]);
  });
});
