// detectAnomaly: the op that made the first NaN or infinity, forward or backward, the line of this file that called it,
// and no report of infinities that are there on purpose.
import { describe, expect, it } from 'vitest';
import {
  ArgumentError,
  AutogradError,
  autograd,
  cat,
  checkpoint,
  crossEntropy,
  detectAnomaly,
  grad,
  logsumexp,
  maxPool2d,
  nn,
  noGrad,
  ones,
  optim,
  pad,
  randn,
  scaledDotProductAttention,
  type Tensor,
  tensor,
  vmap,
  where,
  zeros,
} from '../lib/index.ts';
import { f64, gradOf, leaf, thrownBy, values } from './support.ts';

/** The error of fn under detectAnomaly. */
function found(fn: () => unknown): string {
  const error = thrownBy(() => detectAnomaly(fn)) as Error;
  expect(error, error.message).toBeInstanceOf(AutogradError);
  expect(error.message).toMatch(/^detectAnomaly: /);
  return error.message;
}
/** The line of the caller in this file, moved by `by`. */
function line(by = 0): RegExp {
  const frame = new Error('here').stack!.split('\n').find((text, i) => i > 1 && text.includes('anomaly.test.ts'));
  return new RegExp(`anomaly\\.test\\.ts:${Number(/anomaly\.test\.ts:(\d+)/.exec(frame!)![1]) + by}:\\d+`);
}

describe('in the forward pass', () => {
  it('names the op, this line, and what went in', () => {
    const x = leaf([-1, 4, 0.25]);
    const here = line(1);
    const message = found(() => x.mul(1).log().sum());
    expect(message).toMatch(here);
    expect(message).toMatch(/LogBackward, recorded at .*: the forward pass made 1 NaN in a result of shape \[3\]/);
    expect(message).toMatch(/Input 0: float64 \[3\], -1 to 4, mean 1\.0833\./);
  });

  it('is the line of the call inside functions, layers and callbacks', () => {
    const inner = (x: Tensor): Tensor => {
      const y = x.add(1);
      return y.sqrt();
    };
    const here = line(-2);
    expect(found(() => [leaf([-3])].map(inner))).toMatch(here);
    const layer = new nn.Linear(2, 2);
    noGrad(() => layer.weight.fill_(Number.POSITIVE_INFINITY));
    const call = line(1);
    expect(found(() => layer.call(tensor([[1, -1]])))).toMatch(call);
    class Bad extends autograd.Function {
      static forward(_: autograd.FunctionContext, x: Tensor): Tensor {
        return x.div(0);
      }
      static backward(_: autograd.FunctionContext, g: Tensor): Tensor {
        return g;
      }
    }
    const apply = line(1);
    const message = found(() => Bad.apply(leaf([1])));
    expect(message).toMatch(apply);
    expect(message).toMatch(/BadBackward.*1 infinity/);
  });

  it('counts NaN and infinities, zeros, and both operands', () => {
    const message = found(() => leaf([3, 0, 2, 1]).div(leaf([0, 0, 1, 0])));
    expect(message).toMatch(/DivBackward.*made 1 NaN and 2 infinities/);
    expect(message).toMatch(/Input 0: float64 \[4\], 0 to 3, mean 1\.5, 1 zero\./);
    expect(message).toMatch(/Input 1: float64 \[4\], 0 to 1, mean 0\.25, 3 zeros\./);
    expect(found(() => tensor([200], { requiresGrad: true }).exp())).toMatch(/ExpBackward.*1 infinity.*float32/);
  });

  it('tells a NaN that came from outside', () => {
    expect(found(() => leaf([Number.NaN, 2]).mul(3))).toMatch(/MulBackward.*input 0 came with 1 NaN, from outside/);
    expect(found(() => leaf([1, 2]).mul(f64([1, Number.NaN])))).toMatch(/input 1 came with 1 NaN/);
  });

  it('of an op in place is the op’s, not its input’s', () => {
    const here = line(1);
    const message = found(() => leaf([-1, 2]).mul(1).log_());
    expect(message).toMatch(here);
    expect(message).toMatch(/LogBackward.*the forward pass made 1 NaN/);
    expect(
      found(() =>
        leaf([1, 2])
          .mul(1)
          .div_(f64([0, 1])),
      ),
    ).toMatch(/DivBackward.*the forward pass made 1 infinity/);
  });

  it('inside vmap and inside a checkpoint', () => {
    const here = line(1);
    const mapped = found(() => vmap((x: Tensor) => x.log())(leaf([-1, 2])));
    expect(mapped).toMatch(here);
    expect(mapped).toMatch(/LogBackward.*1 NaN/);
    const below = line(1);
    expect(found(() => checkpoint((x: Tensor) => x.log(), leaf([-1, 2])))).toMatch(below);
  });
});

describe('in the backward pass', () => {
  it('names the op, the line of its forward pass, and what it had saved', () => {
    const here = line(1);
    const message = found(() => leaf([0, 4]).mul(1).sqrt().sum().backward());
    expect(message).toMatch(here);
    expect(message).toMatch(
      /SqrtBackward, recorded at .*: the backward pass made 1 infinity in the gradient of input 0/,
    );
    expect(message).toMatch(/Saved tensor 0: float64 \[2\], 0 to 2, mean 1, 1 zero\./);
    expect(message).not.toMatch(/Hint/);
  });

  it('knows 0 times infinity, and its way out is one', () => {
    const x = leaf([0, 4]);
    const here = line(1);
    const message = found(() => where(x.gt(0), x.sqrt(), f64(0)).sum().backward());
    expect(message).toMatch(here);
    expect(message).toMatch(/SqrtBackward.*1 NaN.*Hint: 0 times an infinite derivative.*where\(ok, /s);
    expect(x.grad).toBeNull();
    const ok = x.gt(0);
    detectAnomaly(() =>
      where(ok, where(ok, x, f64(1)).sqrt(), f64(0))
        .sum()
        .backward(),
    );
    expect(gradOf(x)).toEqual([0, 0.25]);
    // The norm at 0, times 0.
    expect(found(() => leaf([0, 4]).mul(1).sqrt().mul(0).sum().backward())).toMatch(/Hint/);
  });

  it('without the place when the forward pass was outside', () => {
    const y = leaf([0, 4]).sqrt().sum();
    expect(found(() => y.backward())).toMatch(/^detectAnomaly: SqrtBackward: the backward pass made 1 infinity/);
  });

  it('tells a gradient that was given, or returned by a hook', () => {
    const y = leaf([1, 2]).mul(2);
    expect(found(() => y.backward(f64([1, Number.NaN])))).toMatch(/MulBackward: a gradient arrived with 1 NaN/);
    const x = leaf([1, 2]);
    const z = x.mul(2);
    z.registerHook((g) => g.div(0));
    expect(found(() => z.sum().backward())).toMatch(/a gradient arrived with 2 infinities.*hook/);
  });

  it('of grad, of a recorded pass, of a checkpoint, and of a Function', () => {
    const x = leaf([0, 4]);
    expect(found(() => grad(x.sqrt().sum(), x))).toMatch(/SqrtBackward/);
    expect(found(() => grad(x.pow(1.5).sum(), x, { createGraph: true })[0]!.sum().backward())).toMatch(/Backward/);
    const here = line(1);
    const root = (a: Tensor): Tensor => a.sqrt();
    expect(found(() => checkpoint(root, x).sum().backward())).toMatch(here);
    class Bad extends autograd.Function {
      static forward(_: autograd.FunctionContext, a: Tensor): Tensor {
        return a.clone();
      }
      static backward(_: autograd.FunctionContext, g: Tensor): Tensor {
        return g.div(0);
      }
    }
    expect(found(() => Bad.apply(x).sum().backward())).toMatch(/BadBackward.*2 infinities/);
    expect(x.grad).toBeNull();
  });
});

describe('what is there on purpose is not reported', () => {
  const hidden = ones([4, 4]).triu(1).gt(0);
  const low = zeros([4, 4]).maskedFill(hidden, Number.NEGATIVE_INFINITY);
  const x = (): Tensor => randn([4, 4], { requiresGrad: true });
  it.each<[string, () => Tensor]>([
    ['attention, causal', () => attend({ isCausal: true })],
    ['attention, a bool mask', () => attend({ mask: hidden.eq(tensor(false)) })],
    ['attention, a mask of -inf', () => attend({ mask: low })],
    ['softmax of masked scores', () => x().maskedFill(hidden, Number.NEGATIVE_INFINITY).softmax(1).square()],
    ['scores plus a mask', () => x().add(low).softmax(1)],
    ['logsumexp of masked scores', () => logsumexp(x().maskedFill(hidden, Number.NEGATIVE_INFINITY), 1)],
    ['the largest of masked', () => x().maskedFill(hidden, Number.NEGATIVE_INFINITY).max(1)[0]!],
    ['where with infinity', () => where(hidden, low, x()).exp()],
    ['pooling with padding', () => maxPool2d(x().reshape([1, 1, 4, 4]), 3, { padding: 1 })],
    ['padding', () => pad(x(), [1, 1], Number.NEGATIVE_INFINITY).amax(1)],
    ['put together', () => cat([x(), x().maskedFill(hidden, Number.NEGATIVE_INFINITY)], 0).exp()],
    ['through views', () => x().maskedFill(hidden, Number.NEGATIVE_INFINITY).T.reshape([16]).exp()],
    ['in place', () => x().mul(1).maskedFill_(hidden, Number.NEGATIVE_INFINITY).mul_(0.5).exp_()],
    ['a loss with a class masked', () => crossEntropy(x().add(low), tensor([0, 1, 2, 3], { dtype: 'int32' }))],
  ])('%s', (_, run) => {
    detectAnomaly(() => run().sum().backward());
  });

  function attend(options: object): Tensor {
    const [q, k, v] = [0, 1, 2].map(() => randn([2, 4, 8], { requiresGrad: true }));
    return scaledDotProductAttention(q!, k!, v!, options);
  }

  it('a training step of a model with all of it', () => {
    const model = new nn.TransformerEncoderLayer(8, 2, { dimFeedforward: 16 });
    const optimizer = new optim.Adam(model.parameters(), { lr: 0.01 });
    detectAnomaly(() => {
      for (let i = 0; i < 2; i++) {
        optimizer.zeroGrad();
        model
          .call(randn([2, 4, 8]))
          .square()
          .mean()
          .backward();
        optimizer.step();
      }
    });
  });
});

describe('the switch', () => {
  it('ends with the function, also when it throws, and nests', () => {
    const x = leaf([-1]);
    found(() => x.log());
    expect(values(x.log())).toEqual([Number.NaN]);
    expect(detectAnomaly(() => x.square().item())).toBe(1);
    expect(found(() => detectAnomaly(() => x.add(1)) && x.log())).toMatch(/LogBackward/);
    expect(thrownBy(() => detectAnomaly(3 as never))).toBeInstanceOf(ArgumentError);
    // Places are noted inside only.
    const a = x.mul(1);
    const y = a.square();
    a.add_(1);
    expect(thrownBy(() => y.sum().backward())).toMatchObject({
      message: expect.stringMatching(/Inside detectAnomaly/),
    });
  });

  it('follows the awaits of an async function, and leaves others alone', async () => {
    const x = leaf([-1]);
    const inside = detectAnomaly(async () => {
      await null;
      return x.log();
    });
    expect(values(x.log())).toEqual([Number.NaN]);
    await expect(inside).rejects.toThrow(/^detectAnomaly: LogBackward/);
    expect(values(x.log())).toEqual([Number.NaN]);
  });

  it('adds the place to errors about changes in place', () => {
    const x = leaf([1, 2]).mul(1);
    const here = [line(3), line(4)];
    const error = thrownBy(() =>
      detectAnomaly(() => {
        const y = x.square();
        x.add_(1);
        y.sum().backward();
      }),
    ) as Error;
    expect(error.message).toMatch(here[0]!);
    expect(error.message).toMatch(here[1]!);
    expect(error.message).toMatch(/saved at .* was changed in place at/);
  });

  it('leaves values, gradients and versions as they are', () => {
    const run = (wrap: (fn: () => void) => void): number[][] => {
      const [x, w] = [leaf([0.5, 2]), leaf([1, -1])];
      wrap(() => x.mul(w).tanh().mul(x).sum().backward());
      return [x, w].map(gradOf);
    };
    expect(run((fn) => detectAnomaly(fn))).toEqual(run((fn) => fn()));
  });

  it('costs nothing where it is not used: no place is looked for', () => {
    const { prepareStackTrace } = Error;
    let looked = 0;
    Error.prepareStackTrace = (error, frames) => {
      looked++;
      return prepareStackTrace ? prepareStackTrace(error, frames) : String(error);
    };
    try {
      const x = leaf([0.5, 2]);
      const y = x.mul(2).exp();
      y.sum().backward();
      expect([looked, y.gradFn!.madeAt]).toEqual([0, '']);
    } finally {
      Error.prepareStackTrace = prepareStackTrace;
    }
  });
});
