// How a gradient flows back through a model, layer by layer, and which units let none through. Layer nn.

import { checkOptions } from '../arguments.ts';
import { grad } from '../autograd/backward.ts';
import { enableGrad, noGrad } from '../autograd/grad-mode.ts';
import { ArgumentError, AutogradError, ShapeError } from '../errors.ts';
import { checkDim, describe, show } from '../shape.ts';
import { checkTensor, scope, Tensor } from '../tensor.ts';
import { bar, type Column, decades, printsAs, table } from '../text.ts';
import { ReLU, ReLU6 } from './activations.ts';
import type { AnyModule } from './module.ts';
import { checkModel, inEvalMode, type Seen, watching } from './watch.ts';

const isLeaf = (module: AnyModule): boolean => module.children().next().done === true;

// ---- gradient flow ------------------------------------------------------------------------------------------------------
/** What was measured of one layer in one pass forward and backward. */
export interface LayerFlow {
  /** The dotted name of the module; `relu#2` for the second call of a module that is called several times. */
  readonly name: string;
  readonly type: string;
  /** Of its output: mean, deviation (with divisor n) and the share of elements that are 0. */
  readonly activation: { readonly mean: number; readonly std: number; readonly zeros: number };
  /** Of the loss with respect to its output: 2-norm and the share of elements that are 0. Null: none reaches it. */
  readonly gradient: { readonly norm: number; readonly zeros: number } | null;
  /** The 2-norm of the gradients of its weights (parameters whose name says weight) together. Null: it has none. */
  readonly weightGradNorm: number | null;
  /** gradient.norm over that of the last layer that a gradient reaches. */
  readonly ratio: number | null;
}

/** The layers in the order in which they ran. Prints as a table. */
export type GradientFlow = readonly LayerFlow[];

/**
 * Runs `loss` and its backward pass, and measures what comes out of every leaf module of the model, and what gradient
 * comes back. Gradients go nowhere else: every `grad` stays as it is. `loss` is called once, in the mode the model is
 * in, and returns a scalar.
 * @throws AutogradError when the loss requires no grad or no layer of the model ran, ShapeError when it is no scalar
 */
export function gradientFlow(model: AnyModule, loss: () => Tensor): GradientFlow {
  const op = 'gradientFlow';
  checkModel(op, model);
  if (typeof loss !== 'function') {
    throw new ArgumentError(`${op}: the loss is ${describe(loss)}. Expected a function that computes it.`);
  }
  return asTable(
    scope(() => {
      const layers: Layer[] = [];
      const see = ({ name, module, outputs: [output] }: Seen): void => {
        if (output !== undefined) layers.push({ name, module, output });
      };
      const value = enableGrad(() => watching(model, isLeaf, see, loss));
      checkTensor(op, value, 'loss');
      if (value.numel !== 1)
        throw new ShapeError(`${op}: a loss of shape ${show(value.shape)}. Expected one number, as after mean().`);
      if (layers.length === 0) throw new AutogradError(`${op}: no layer ran. Call layers and model with call().`);
      return measure(layers, value);
    }),
  );
}

interface Layer extends Omit<Seen, 'outputs'> {
  readonly output: Tensor;
}

function measure(layers: readonly Layer[], loss: Tensor): LayerFlow[] {
  const weights = layers.map(({ module }) => weightsOf(module));
  const targets = [...new Set([...layers.map(({ output }) => output), ...weights.flat()])].filter(
    (t) => t.requiresGrad,
  );
  const gradients = new Map<Tensor, Tensor>();
  grad(loss, targets, { allowUnused: true }).forEach((g, i) => {
    if (g !== null) gradients.set(targets[i]!, g);
  });
  const norms = layers.map(({ output }) => {
    const g = gradients.get(output);
    return g === undefined ? null : normOf([g]);
  });
  const last = norms.findLast((norm) => norm !== null) ?? null;
  return noGrad(() =>
    layers.map(({ name, module, output }, i): LayerFlow => {
      const norm = norms[i]!;
      const reached = weights[i]!.flatMap((weight) => gradients.get(weight) ?? []);
      return {
        name,
        type: module.constructor.name,
        activation: spread(output),
        gradient: norm === null ? null : { norm, zeros: zerosOf(gradients.get(output)!) },
        weightGradNorm: reached.length === 0 ? null : normOf(reached),
        ratio: norm === null || last === null ? null : norm / last,
      };
    }),
  );
}

const weightsOf = (module: AnyModule): Tensor[] =>
  [...module.namedParameters()].filter(([name]) => /weight/i.test(name)).map(([, parameter]) => parameter);

// In float64, whose squares neither vanish nor overflow where a gradient of float32 is 1e-30.
const wide = (t: Tensor): Tensor => t.detach().to('float64');
const normOf = (ts: readonly Tensor[]): number => Math.hypot(...ts.map((t) => wide(t).norm().item()));
const zerosOf = (t: Tensor): number => wide(t.eq(0)).mean().item();

function spread(output: Tensor): LayerFlow['activation'] {
  const values = wide(output);
  return { mean: values.mean().item(), std: values.std(undefined, { correction: 0 }).item(), zeros: zerosOf(output) };
}

// ---- the table ----------------------------------------------------------------------------------------------------------
const scientific = (value: number | null): string => value?.toExponential(2) ?? '-';
const share = (value: number | undefined): string => (value === undefined ? '-' : `${(100 * value).toFixed(1)} %`);

const COLUMNS: readonly Column<LayerFlow>[] = [
  { title: 'layer', cell: ({ name }) => name, left: true },
  { title: 'type', cell: ({ type }) => type, left: true },
  { title: 'mean', cell: ({ activation }) => scientific(activation.mean) },
  { title: 'std', cell: ({ activation }) => scientific(activation.std) },
  { title: 'zeros', cell: ({ activation }) => share(activation.zeros) },
  { title: '|gradient|', cell: ({ gradient }) => scientific(gradient?.norm ?? null) },
  { title: 'zero grads', cell: ({ gradient }) => share(gradient?.zeros) },
  { title: '|weight grad|', cell: ({ weightGradNorm }) => scientific(weightGradNorm) },
  { title: 'ratio', cell: ({ ratio }) => scientific(ratio) },
];
const BAR = 24;

/** |gradient| of each layer as a bar on a logarithmic scale of whole decades, whose ends are the title. */
function bars(layers: GradientFlow): Column<LayerFlow> {
  const scale = decades(layers.map(({ gradient }) => gradient?.norm ?? 0));
  const [low, high] = scale ?? [0, 1];
  const [from, to] = scale === null ? ['', ''] : [low, high].map((end) => `1e${end < 0 ? '' : '+'}${end}`);
  const filled = ({ gradient }: LayerFlow): string => {
    const exponent = Math.log10(gradient?.norm ?? 0);
    if (!Number.isFinite(exponent)) return ' '.repeat(BAR);
    return bar(Math.max((exponent - low) / (high - low), Number.MIN_VALUE), BAR);
  };
  return { title: from + to!.padStart(BAR + 2 - from!.length), cell: (layer) => `|${filled(layer)}|` };
}

/** The rows as an array like any other, which prints as a table. */
const asTable = (layers: LayerFlow[]): GradientFlow =>
  printsAs(layers, () => table([...COLUMNS, bars(layers)], layers));

// ---- dead units ---------------------------------------------------------------------------------------------------------
/** The units of one layer of ReLUs. */
export interface DeadUnits {
  /** As in LayerFlow. */
  readonly name: string;
  readonly units: number;
  /** Those that no input switched on, ascending. */
  readonly dead: number[];
}

export interface DeadUnitsOptions {
  /** The dimension of the outputs that counts units. Default: 1 for four dimensions and more (channels), else the last. */
  dim?: number;
}

/** Where the derivative of the activation that gave `output` is exactly 0. */
const OFF: readonly (readonly [typeof ReLU | typeof ReLU6, (output: Tensor) => Tensor])[] = [
  [ReLU, (output) => output.le(0)],
  [ReLU6, (output) => output.le(0).maximum(output.ge(6))],
];
const offOf = (module: AnyModule) => OFF.find(([type]) => module instanceof type)?.[1];

/**
 * Finds the units of every ReLU and ReLU6 that are off, so that no gradient passes, for every input in `batches`: a
 * unit that is off for some inputs is merely inactive. A batch is the model's input, or a list that begins with it, as
 * loaders give. Runs in eval mode without recording, and puts every module back into its mode. A relu that is called as
 * a function, not as a module, is not seen.
 * @throws ArgumentError when there are no batches, ShapeError when a layer has not as many units in each
 */
export function deadUnits(
  model: AnyModule,
  batches: Iterable<Tensor | readonly unknown[]>,
  options: DeadUnitsOptions = {},
): DeadUnits[] {
  const op = 'deadUnits';
  checkModel(op, model);
  checkOptions(op, options, { dim: 1 });
  const { dim } = options;
  if (
    typeof (batches as Partial<typeof batches> | null)?.[Symbol.iterator] !== 'function' ||
    batches instanceof Tensor
  ) {
    throw new ArgumentError(
      `${op}: the batches are ${describe(batches)}. Expected an array of inputs, or a DataLoader.`,
    );
  }
  const alwaysOff = new Map<string, Uint8Array>();
  const see = ({ name, module, outputs: [output] }: Seen): void => {
    if (output === undefined) return;
    const off = offFor(op, output, offOf(module)!, dim);
    const before = alwaysOff.get(name) ?? off;
    if (before.length !== off.length) {
      throw new ShapeError(`${op}: ${name} has ${off.length} units for one batch and ${before.length} for another.`);
    }
    alwaysOff.set(
      name,
      off.map((value, unit) => value & before[unit]!),
    );
  };
  const run = (forget: () => void): void => {
    let count = 0;
    for (const batch of batches) {
      forget();
      scope(() => void noGrad(() => model.call(inputOf(op, batch))));
      count++;
    }
    if (count === 0) throw new ArgumentError(`${op}: there are no batches. Of no inputs, every unit is off for all.`);
  };
  inEvalMode(model, () => watching(model, (module) => offOf(module) !== undefined, see, run));
  return [...alwaysOff].map(([name, off]) => ({ name, units: off.length, dead: indicesOf(off) }));
}

function inputOf(op: string, batch: unknown): Tensor {
  const input: unknown = Array.isArray(batch) ? batch[0] : batch;
  checkTensor(op, input, 'input of the model');
  return input;
}

/** For each unit 1 if it is off throughout the batch, else 0. */
function offFor(op: string, output: Tensor, isOff: (output: Tensor) => Tensor, dim?: number): Uint8Array {
  const units = checkDim(op, dim ?? (output.ndim >= 4 ? 1 : -1), output.ndim);
  const others = output.shape.map((_, d) => d).filter((d) => d !== units);
  const off = isOff(output);
  return (others.length === 0 ? off : off.all(others)).toTypedArray() as Uint8Array;
}

const indicesOf = (flags: Uint8Array): number[] => [...flags.keys()].filter((i) => flags[i] === 1);
