// backward() and grad(): where gradients arrive, how often a graph can be walked, and what is refused.
import { describe, expect, it } from 'vitest';
import { AutogradError, DTypeError, grad, noGrad, ShapeError, tensor } from '../lib/index.ts';
import { f64, gradOf, leaf, thrownBy, values } from './support.ts';

describe('backward', () => {
  it('accumulates into grad', () => {
    const x = leaf([1, 2, 3]);
    for (let i = 0; i < 2; i++) x.square().sum().backward();
    expect(gradOf(x)).toEqual([4, 8, 12]);
    x.grad = null;
    x.square().sum().backward();
    expect(gradOf(x)).toEqual([2, 4, 6]);
  });

  it('needs a gradient for what is not a scalar', () => {
    const error = thrownBy(() => leaf([1, 2]).mul(2).backward()) as AutogradError;
    expect(error).toBeInstanceOf(AutogradError);
    expect(error.message).toMatch(/\[2\].*sum\(\)\.backward\(\).*backward\(gradient\)/);
    const one = leaf([[3]]);
    one.square().backward();
    expect(gradOf(one)).toEqual([6]);
  });

  it('refuses a gradient that does not fit, and what has no history', () => {
    const y = leaf([1, 2]).mul(2);
    const shapes = thrownBy(() => y.backward(f64([1, 2, 3])));
    expect(shapes).toBeInstanceOf(ShapeError);
    expect((shapes as Error).message).toMatch(/\[3\].*\[2\]/);
    expect(thrownBy(() => y.backward(tensor([1, 2])))).toBeInstanceOf(DTypeError);
    expect(thrownBy(() => f64(1).backward())).toBeInstanceOf(AutogradError);
    expect(thrownBy(() => noGrad(() => leaf(1).mul(2)).backward())).toBeInstanceOf(AutogradError);
    expect(thrownBy(() => leaf(1).mul(2).detach().backward())).toBeInstanceOf(AutogradError);
  });

  it('frees what the graph saved, unless it is retained', () => {
    const x = leaf([1, 2, 3]);
    const y = x.mul(x).sum();
    y.backward();
    const error = thrownBy(() => y.backward());
    expect(error).toBeInstanceOf(AutogradError);
    expect((error as Error).message).toMatch(/MulBackward.*retainGraph/);
    expect(gradOf(x)).toEqual([2, 4, 6]);
    expect(thrownBy(() => y.gradFn!.nextFunctions[0]!.savedTensors)).toBeInstanceOf(AutogradError);

    x.grad = null;
    const z = x.mul(x).sum();
    z.backward(null, { retainGraph: true });
    z.backward();
    expect(gradOf(x)).toEqual([4, 8, 12]);
  });

  it('goes twice through a graph that saved nothing', () => {
    const x = leaf([1, 2, 3]);
    const y = x.sum();
    y.backward();
    y.backward();
    expect(gradOf(x)).toEqual([2, 2, 2]);
  });

  it('adds into the given inputs alone', () => {
    const [x, w] = [leaf(2), leaf(3)];
    const h = x.mul(w);
    h.square().backward(null, { inputs: [x, h] });
    expect([x.grad!.item(), h.grad!.item(), w.grad]).toEqual([36, 12, null]);
    expect(
      thrownBy(() =>
        leaf(1)
          .mul(2)
          .backward(null, { inputs: [f64(1)] }),
      ),
    ).toBeInstanceOf(AutogradError);
  });

  it('leaves the gradient that it was given alone', () => {
    const x = leaf([1, 2]);
    const [plain, computed] = [f64([3, 4]), leaf([5, 6]).mul(1)];
    x.add(1).backward(plain);
    x.mul(5).backward(computed);
    expect([values(plain), values(computed)]).toEqual([
      [3, 4],
      [5, 6],
    ]);
    expect(gradOf(x)).toEqual([28, 34]);
    noGrad(() => x.grad!.zero_());
    expect([values(plain), values(computed)]).toEqual([
      [3, 4],
      [5, 6],
    ]);
  });

  it.each([false, true])('gives every leaf a gradient of its own (createGraph: %s)', (createGraph) => {
    const [a, b, v] = [leaf([1, 2]), leaf([3, 4]), f64([1, 1])];
    a.add(b).backward(v, { createGraph });
    noGrad(() => a.grad!.mul_(2));
    v.fill_(7);
    expect([gradOf(a), gradOf(b)]).toEqual([
      [2, 2],
      [1, 1],
    ]);
  });

  it('records itself on request', () => {
    const x = leaf(2);
    x.pow(3).backward(null, { createGraph: true });
    const first = x.grad!;
    expect([first.item(), first.requiresGrad]).toEqual([12, true]);
    x.grad = null;
    first.backward();
    expect(x.grad!.item()).toBe(12);
  });
});

describe('grad', () => {
  it('returns gradients, and leaves every grad alone', () => {
    const [x, w] = [leaf([1, 2]), leaf([3, 4])];
    const h = x.mul(w);
    const loss = h.square().sum();
    const gradients = grad(loss, [h, w, loss]);
    expect(gradients.map(values)).toEqual([[6, 16], [6, 32], [1]]);
    expect([x.grad, w.grad]).toEqual([null, null]);
    expect(gradients.every((g) => !g.requiresGrad)).toBe(true);
  });

  it('takes several outputs', () => {
    const x = leaf([1, 2]);
    const gradOutputs = [null, f64([10, 100])];
    expect(values(grad([x.sum(), x.square()], x, { gradOutputs })[0]!)).toEqual([21, 401]);
  });

  it('tells an input that nothing depends on', () => {
    const [x, unused] = [leaf(1), leaf([1, 2])];
    const error = thrownBy(() => grad(x.mul(2), [x, unused]));
    expect(error).toBeInstanceOf(AutogradError);
    expect((error as Error).message).toMatch(/input 1.*\[2\].*allowUnused/);
    const [g, none] = grad(x.mul(2), [x, unused], { allowUnused: true });
    expect([g!.item(), none]).toEqual([2, null]);
    expect(thrownBy(() => grad(x.mul(2), f64(1)))).toBeInstanceOf(AutogradError);
  });
});

describe('a result that is no leaf', () => {
  it('keeps the gradient from x after x = x + 1, and says so', async () => {
    const old = leaf([1, 2]);
    const x = old.add(1);
    const warning = new Promise<Error & { code?: string }>((resolve) => process.once('warning', resolve));
    x.mul(2).sum().backward();
    expect(x.grad).toBeNull();
    expect(gradOf(old)).toEqual([2, 2]);
    expect(await warning).toMatchObject({
      code: 'CHAINRULE_NON_LEAF_GRAD',
      message: expect.stringContaining('retainGrad'),
    });
  });

  it('can be cut off, copied and made to require grad', () => {
    const x = leaf([1, 2]);
    const cut = x.mul(2).detach();
    expect([cut.requiresGrad, cut.isLeaf, cut.gradFn]).toEqual([false, true, null]);
    expect(cut.requiresGrad_().requiresGrad).toBe(true);
    x.clone().mul(cut).sum().backward();
    expect([gradOf(x), gradOf(cut)]).toEqual([
      [2, 4],
      [1, 2],
    ]);
    expect(thrownBy(() => tensor([1], { dtype: 'int32' }).requiresGrad_())).toBeInstanceOf(AutogradError);
    expect(thrownBy(() => x.mul(2).requiresGrad_(false))).toBeInstanceOf(AutogradError);
  });
});
