// Every op, by name. The only barrel of the library besides lib/index.ts.
export { clone, contiguous, double, float, to } from './cast.ts';
export { allClose, equal } from './compare.ts';
export { arange, empty, eye, full, fullLike, linspace, ones, onesLike, tensor, zeros, zerosLike } from './create.ts';
export * from './elementwise.ts';
export * from './indexing.ts';
export * from './join.ts';
export { dropout, layerNorm, rmsNorm } from './layers.ts';
export * from './losses.ts';
export * from './matmul.ts';
export { bernoulli, normal, rand, randint, randn, randperm } from './random.ts';
export * from './reduce.ts';
export * from './softmax.ts';
export * from './views.ts';
