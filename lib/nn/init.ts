// nn.init: fills parameters in place, outside the tape, and returns them. Layer nn.
import { noGrad } from '../autograd/grad-mode.ts';
import { ArgumentError, ShapeError } from '../errors.ts';
import { empty } from '../ops/index.ts';
import type { Generator } from '../random.ts';
import { describe, show } from '../shape.ts';
import type { Tensor } from '../tensor.ts';

/** What follows the layer: it decides by how much to scale up so that the variance stays. */
export type Nonlinearity = 'linear' | 'sigmoid' | 'tanh' | 'relu' | 'leakyRelu' | 'selu';

interface Random {
  generator?: Generator;
}

interface KaimingOptions extends Random {
  /** Slope of the leakyRelu that follows. */
  a?: number;
  /** 'fanIn' keeps the variance of activations, 'fanOut' that of gradients. */
  mode?: 'fanIn' | 'fanOut';
  nonlinearity?: Nonlinearity;
}

interface XavierOptions extends Random {
  gain?: number;
}

export const uniform_ = (tensor: Tensor, low = 0, high = 1, options: Random = {}): Tensor =>
  noGrad(() => tensor.uniform_(low, high, { generator: options.generator }));

export const normal_ = (tensor: Tensor, mean = 0, std = 1, options: Random = {}): Tensor =>
  noGrad(() => tensor.normal_(mean, std, { generator: options.generator }));

export const constant_ = (tensor: Tensor, value: number): Tensor => noGrad(() => tensor.fill_(value));
export const zeros_ = (tensor: Tensor): Tensor => constant_(tensor, 0);
export const ones_ = (tensor: Tensor): Tensor => constant_(tensor, 1);

/** He initialisation, U(±√3·std) with std = gain/√fan. */
export function kaimingUniform_(tensor: Tensor, options: KaimingOptions = {}): Tensor {
  const bound = Math.sqrt(3) * kaimingStd('kaimingUniform_', tensor, options);
  return uniform_(tensor, -bound, bound, options);
}

/** He initialisation, N(0, std²) with std = gain/√fan. */
export function kaimingNormal_(tensor: Tensor, options: KaimingOptions = {}): Tensor {
  return normal_(tensor, 0, kaimingStd('kaimingNormal_', tensor, options), options);
}

/** Glorot initialisation, U(±√3·std) with std = gain·√(2/(fanIn + fanOut)). */
export function xavierUniform_(tensor: Tensor, options: XavierOptions = {}): Tensor {
  const bound = Math.sqrt(3) * xavierStd('xavierUniform_', tensor, options);
  return uniform_(tensor, -bound, bound, options);
}

/** Glorot initialisation, N(0, std²) with std = gain·√(2/(fanIn + fanOut)). */
export function xavierNormal_(tensor: Tensor, options: XavierOptions = {}): Tensor {
  return normal_(tensor, 0, xavierStd('xavierNormal_', tensor, options), options);
}

/** A uniformly random matrix with orthonormal rows or columns, whichever are fewer, times `gain`. */
export function orthogonal_(tensor: Tensor, { gain = 1, ...options }: XavierOptions = {}): Tensor {
  fans('orthogonal_', tensor);
  const rows = tensor.shape[0]!;
  const columns = rows === 0 ? 0 : tensor.numel / rows;
  const tall = rows > columns;
  return noGrad(() => {
    const q = normal_(empty([Math.min(rows, columns), Math.max(rows, columns)], { dtype: 'float64' }), 0, 1, options);
    for (let i = 0; i < q.shape[0]!; i++) {
      const row = q.select(0, i);
      const above = q.narrow(0, 0, i);
      // Gram-Schmidt loses orthogonality to rounding once; a second pass restores it to machine precision.
      for (let pass = 0; pass < 2 && i > 0; pass++) row.sub_(above.mv(row).matmul(above));
      row.div_(row.norm().item());
    }
    return tensor.copy_((tall ? q.T : q).mul(gain).to(tensor.dtype).reshape(tensor.shape));
  });
}

/** The recommended factor for a nonlinearity; `slope` is leakyRelu's. */
export function calculateGain(nonlinearity: Nonlinearity, slope = 0.01): number {
  switch (nonlinearity) {
    case 'linear':
    case 'sigmoid':
      return 1;
    case 'tanh':
      return 5 / 3;
    case 'relu':
      return Math.SQRT2;
    case 'leakyRelu':
      return Math.sqrt(2 / (1 + slope ** 2));
    case 'selu':
      return 3 / 4;
    default:
      throw new ArgumentError(`calculateGain: unknown nonlinearity ${String(nonlinearity satisfies never)}.`);
  }
}

/** Inputs and outputs of one unit: of a weight [out, in, …kernel], each times the kernel's size. */
function fans(op: string, { shape, numel }: Tensor): { fanIn: number; fanOut: number } {
  if (shape.length < 2) throw new ShapeError(`${op}: shape ${show(shape)} has no fan. Expected 2 dimensions or more.`);
  const [out, input] = shape as [number, number];
  return { fanIn: out === 0 ? 0 : numel / out, fanOut: input === 0 ? 0 : numel / input };
}

function kaimingStd(op: string, tensor: Tensor, options: KaimingOptions): number {
  const { a = 0, mode = 'fanIn', nonlinearity = 'leakyRelu' } = options;
  if (mode !== 'fanIn' && mode !== 'fanOut') {
    throw new ArgumentError(`${op}: mode is ${describe(mode)}. Expected 'fanIn' or 'fanOut'.`);
  }
  // A weight without elements has fan 0, and nothing to fill.
  return calculateGain(nonlinearity, a) / Math.sqrt(Math.max(fans(op, tensor)[mode], 1));
}

function xavierStd(op: string, tensor: Tensor, { gain = 1 }: XavierOptions): number {
  const { fanIn, fanOut } = fans(op, tensor);
  return gain * Math.sqrt(2 / Math.max(fanIn + fanOut, 1));
}
