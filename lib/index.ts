// The public API of chainrule.
import './methods.ts';

export { backward, type GradOptions, grad } from './autograd/backward.ts';
export type { Node } from './autograd/tape.ts';
export { enableGrad, inferenceMode, isGradEnabled, noGrad } from './autograd/tape.ts';
export type { BackwardOptions } from './autograd/walk.ts';
export * as data from './data/data.ts';
export type { DType, TypedArray } from './dtype.ts';
export {
  ArgumentError,
  AutogradError,
  CaptureError,
  ChainruleError,
  DisposedError,
  DTypeError,
  FormatError,
  IndexError,
  MemoryError,
  ShapeError,
} from './errors.ts';
export * as io from './io/io.ts';
export * as nn from './nn/nn.ts';
export * from './ops/index.ts';
export * as optim from './optim/optim.ts';
export { memoryStats, resetPeakMemory, trimMemory } from './program/engine.ts';
export { Generator, type GeneratorState, manualSeed } from './random.ts';
export { buildInfo, getNumThreads, setNumThreads } from './runtime.ts';
export { keep, scope, Tensor } from './tensor.ts';
