// The public API of chainrule.
import './methods.ts';

export { detectAnomaly } from './autograd/anomaly.ts';
export * as autograd from './autograd/autograd.ts';
export { backward, type GradOptions, grad } from './autograd/backward.ts';
export { checkpoint } from './autograd/checkpoint.ts';
export { type CheckpointPlan, checkpointSequential, type SequentialOptions } from './autograd/checkpoint-sequential.ts';
export { jvp, type Outputs } from './autograd/forward.ts';
export { hessian, hvp, jacobian, type Pullback, vjp } from './autograd/functional.ts';
export { enableGrad, inferenceMode, isGradEnabled, noGrad } from './autograd/grad-mode.ts';
export {
  type Checkable,
  type Gradchecked,
  type GradcheckOptions,
  type GradgradcheckOptions,
  gradcheck,
  gradgradcheck,
} from './autograd/gradcheck.ts';
export { numericalDerivative } from './autograd/numerical-derivative.ts';
export type { Node } from './autograd/tape.ts';
export { savedTensorsHooks } from './autograd/tape.ts';
export { type InDims, vmap } from './autograd/vmap.ts';
export type { BackwardOptions } from './autograd/walk.ts';
export {
  type AsyncOptions,
  type Compiled,
  type CompileOptions,
  compile,
  type Explanation,
  run,
} from './compile/compile.ts';
export * as data from './data/data.ts';
export type { DType, TypedArray } from './dtype.ts';
export {
  ArgumentError,
  AutogradError,
  CaptureError,
  ChainruleError,
  DependencyError,
  DisposedError,
  DTypeError,
  FormatError,
  IndexError,
  MemoryError,
  ShapeError,
} from './errors.ts';
export * as io from './io/io.ts';
export { type DeadUnits, deadUnits, type GradientFlow, gradientFlow, type LayerFlow } from './nn/flow.ts';
export * as nn from './nn/nn.ts';
export { type ModelSummary, type ModuleSummary, type SummaryOptions, summary } from './nn/summary.ts';
export { getFloat32MatmulPrecision, type MatmulPrecision, setFloat32MatmulPrecision } from './ops/gemm.ts';
export * from './ops/index.ts';
export * as optim from './optim/optim.ts';
export { type MemoryStats, memoryStats, resetPeakMemory, trimMemory } from './program/engine.ts';
export * as random from './random/random.ts';
export { Generator, type GeneratorState, manualSeed } from './random.ts';
export { buildInfo, getNumThreads, setNumThreads } from './runtime.ts';
export { keep, scope, Tensor } from './tensor.ts';
export { flowToSvg } from './viz/flow-plot.ts';
export { type GraphOptions, toDot, toSvg } from './viz/graph.ts';
export { type TraceOptions, trace } from './viz/trace.ts';
export type { Trace, TraceEdge, TraceNode, TraceNumber, TraceStep, TraceValues } from './viz/trace-format.ts';
export { parseTrace } from './viz/trace-format.ts';
