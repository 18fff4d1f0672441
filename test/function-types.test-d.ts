// Types of autograd.Function: backward takes what forward returns, and returns what forward takes. What must not compile
// is marked so.
import { autograd, type Tensor, tensor } from '../lib/index.ts';

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const is = <T extends true>(): T | undefined => undefined;
type Context = autograd.FunctionContext;
const x = tensor([1, 2]);

class Scale extends autograd.Function {
  static forward(ctx: Context, a: Tensor, k: number): Tensor {
    ctx.saveForBackward(a);
    return a.mul(k);
  }
  static backward(ctx: Context, g: Tensor): [Tensor | null, null] {
    is<Equal<typeof ctx.savedTensors, Tensor[]>>();
    is<Equal<typeof ctx.needsInputGrad, readonly boolean[]>>();
    return [g, null];
  }
}
const scaled: Tensor = Scale.apply(x, 2);
// @ts-expect-error forward takes a number
Scale.apply(x, 'two');
// @ts-expect-error forward takes two arguments
Scale.apply(x);
// @ts-expect-error forward returns one tensor
const several: Tensor[] = Scale.apply(x, 2);

class Pair extends autograd.Function {
  static forward(_: Context, a: Tensor): [Tensor, Tensor] {
    return [a, a];
  }
  static backward(_: Context, a: Tensor, b: Tensor): Tensor {
    return a.add(b);
  }
}
const [first, second] = Pair.apply(x);
is<Equal<typeof first, Tensor>>();

class TooFew extends autograd.Function {
  static forward(_: Context, a: Tensor, b: Tensor): Tensor {
    return a.add(b);
  }
  static backward(_: Context, g: Tensor): [Tensor] {
    return [g];
  }
}
// @ts-expect-error forward takes two tensors, backward returns one gradient
TooFew.apply(x, x);

class OneForTwo extends autograd.Function {
  static forward(_: Context, a: Tensor, b: Tensor): Tensor {
    return a.add(b);
  }
  static backward(_: Context, g: Tensor): Tensor {
    return g;
  }
}
// @ts-expect-error one gradient is none for two tensors
OneForTwo.apply(x, x);

class ForANumber extends autograd.Function {
  static forward(_: Context, a: Tensor, k: number): Tensor {
    return a.mul(k);
  }
  static backward(_: Context, g: Tensor): [Tensor, Tensor] {
    return [g, g];
  }
}
// @ts-expect-error a number has no gradient
ForANumber.apply(x, 2);

class TakesANumber extends autograd.Function {
  static forward(_: Context, a: Tensor): Tensor {
    return a;
  }
  static backward(_: Context, g: number): Tensor {
    return x.mul(g);
  }
}
// @ts-expect-error a gradient is a tensor
TakesANumber.apply(x);

class OnlyForward extends autograd.Function {
  static forward(_: Context, a: Tensor): Tensor {
    return a;
  }
}
// @ts-expect-error it has no backward
OnlyForward.apply(x);

export const used = [scaled, several, first, second];
