// R58: the arguments of forward and the results of backward belong together; `npm run lint` checks it. What is marked
// as an expected error must not compile.
import { autograd, type Tensor, tensor } from '../../lib/index.ts';

type Context = autograd.FunctionContext;
const x = tensor([1, 2]);

class Scale extends autograd.Function {
  static forward(_: Context, input: Tensor, by: number): Tensor {
    return input.mul(by);
  }

  static backward(_: Context, g: Tensor): [Tensor, null] {
    return [g, null];
  }
}
export const scaled: Tensor = Scale.apply(x, 2);
// @ts-expect-error the number is missing
Scale.apply(x);
// @ts-expect-error no number
Scale.apply(x, 'two');
// @ts-expect-error no tensor
Scale.apply([1, 2], 2);

class OneGradientShort extends autograd.Function {
  static forward(_: Context, a: Tensor, b: Tensor): Tensor {
    return a.add(b);
  }

  static backward(_: Context, g: Tensor): [Tensor] {
    return [g];
  }
}
// @ts-expect-error two tensors, one gradient
OneGradientShort.apply(x, x);

class GradientOfANumber extends autograd.Function {
  static forward(_: Context, input: Tensor, by: number): Tensor {
    return input.mul(by);
  }

  static backward(_: Context, g: Tensor): [Tensor, Tensor] {
    return [g, g];
  }
}
// @ts-expect-error a number has no gradient
GradientOfANumber.apply(x, 2);

class NumberForAGradient extends autograd.Function {
  static forward(_: Context, input: Tensor): Tensor {
    return input;
  }

  static backward(): number {
    return 1;
  }
}
// @ts-expect-error a gradient is a tensor
NumberForAGradient.apply(x);

class Alone extends autograd.Function {
  static forward(_: Context, input: Tensor): Tensor {
    return input;
  }
}
// @ts-expect-error no backward
Alone.apply(x);
