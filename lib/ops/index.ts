// Every op, by name. The only barrel of the library besides lib/index.ts.
export * from './cast.ts';
export { arange, empty, eye, full, fullLike, linspace, ones, onesLike, tensor, zeros, zerosLike } from './create.ts';
export {
  abs,
  acos,
  add,
  asin,
  atan,
  ceil,
  clamp,
  cos,
  cosh,
  div,
  elu,
  eq,
  erf,
  exp,
  expm1,
  floor,
  ge,
  gelu,
  gt,
  hardtanh,
  le,
  leakyRelu,
  log,
  log1p,
  log2,
  logSigmoid,
  lt,
  maskedFill,
  maximum,
  minimum,
  mish,
  mul,
  ne,
  neg,
  pow,
  reciprocal,
  relu,
  relu6,
  round,
  rsqrt,
  selu,
  sigmoid,
  sign,
  silu,
  sin,
  sinh,
  softplus,
  sqrt,
  square,
  sub,
  tan,
  tanh,
  where,
} from './elementwise.ts';
export * from './indexing.ts';
export * from './join.ts';
export { dropout, layerNorm, rmsNorm } from './layers.ts';
export * from './losses.ts';
export * from './matmul.ts';
export { bernoulli, normal, rand, randint, randn, randperm } from './random.ts';
export * from './reduce.ts';
export * from './softmax.ts';
export * from './views.ts';
