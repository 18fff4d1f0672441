// Recurrent networks: RNN, LSTM, GRU. Layer nn. Gates stand in PyTorch's order, so that its weights can be loaded:
// weight_ih_l0 is weightIhL0 here, bias_hh_l1_reverse biasHhL1Reverse.
import { checkOptions, checkRange } from '../arguments.ts';
import type { DType } from '../dtype.ts';
import { ArgumentError, ShapeError } from '../errors.ts';
import {
  add,
  addmm,
  cat,
  chunk,
  dropout,
  empty,
  linear,
  mul,
  narrow,
  relu,
  select,
  sigmoid,
  split,
  squeeze,
  stack,
  sub,
  tanh,
  transpose,
  unsqueeze,
  zeros,
} from '../ops/index.ts';
import { checkInteger, describe, type Shape, sameShape, show } from '../shape.ts';
import { checkTensor, type Tensor } from '../tensor.ts';
import { uniform_ } from './init.ts';
import { Module } from './module.ts';
import { Parameter } from './parameter.ts';

export interface RecurrentOptions {
  /** Layers on top of each other, each with the outputs of the one below as inputs. */
  numLayers?: number;
  bias?: boolean;
  /** Inputs and outputs are (N, L, size) instead of (L, N, size). */
  batchFirst?: boolean;
  /** The chance that an output between layers is dropped in training. */
  dropout?: number;
  /** Every layer also runs from the end; the outputs of both directions stand side by side. */
  bidirectional?: boolean;
  dtype?: DType;
}
const OPTIONS: RecurrentOptions = {
  numLayers: 1,
  bias: true,
  batchFirst: false,
  dropout: 0,
  bidirectional: false,
  dtype: 'float32',
};

/** The parameters of one direction of a layer. */
interface Weights {
  readonly weightIh: Tensor;
  readonly weightHh: Tensor;
  readonly biasIh: Tensor | null;
  readonly biasHh: Tensor | null;
}
/** The hidden state (N, hiddenSize), and the cell's where there is one. */
type State = readonly Tensor[];
/** One step in time: the state after it. */
type Step = (input: Tensor, state: State) => State;

/**
 * The steps of a sequence (L, ...). By halves: the gradient of a part is laid into zeros of the whole, and L parts of
 * one whole would cost L² work.
 */
function steps(x: Tensor): Tensor[] {
  const length = x.shape[0]!;
  if (length === 1) return [squeeze(x, 0)];
  const half = length >> 1;
  return [...steps(narrow(x, 0, 0, half)), ...steps(narrow(x, 0, half, length - half))];
}

abstract class Recurrent<S> extends Module<[input: Tensor, state?: S], [output: Tensor, state: S]> {
  readonly inputSize: number;
  readonly hiddenSize: number;
  readonly numLayers: number;
  readonly bias: boolean;
  readonly batchFirst: boolean;
  readonly dropout: number;
  readonly bidirectional: boolean;

  constructor(inputSize: number, hiddenSize: number, gates: number, options: RecurrentOptions) {
    super();
    const { name } = this.constructor;
    const { numLayers = 1, bias = true, batchFirst = false, bidirectional = false, dtype = 'float32' } = options;
    this.inputSize = checkInteger(name, 'inputSize', inputSize, 1);
    this.hiddenSize = checkInteger(name, 'hiddenSize', hiddenSize, 1);
    this.numLayers = checkInteger(name, 'numLayers', numLayers, 1);
    this.dropout = checkRange(name, 'dropout', options.dropout ?? 0, 0, 1);
    this.bias = bias;
    this.batchFirst = batchFirst;
    this.bidirectional = bidirectional;
    const bound = 1 / Math.sqrt(hiddenSize);
    const draw = (key: string, shape: Shape): void => {
      const parameter = new Parameter(empty(shape, { dtype }));
      uniform_(parameter, -bound, bound);
      Reflect.set(this, key, parameter);
    };
    for (let layer = 0; layer < numLayers; layer++) {
      for (const suffix of this.suffixes(layer)) {
        const inputs = layer === 0 ? inputSize : hiddenSize * this.suffixes(layer).length;
        draw(`weightIh${suffix}`, [gates * hiddenSize, inputs]);
        draw(`weightHh${suffix}`, [gates * hiddenSize, hiddenSize]);
        if (!bias) continue;
        draw(`biasIh${suffix}`, [gates * hiddenSize]);
        draw(`biasHh${suffix}`, [gates * hiddenSize]);
      }
    }
  }

  /** How the names of a layer's parameters end, forward then backward in time. */
  private suffixes(layer: number): string[] {
    return this.bidirectional ? [`L${layer}`, `L${layer}Reverse`] : [`L${layer}`];
  }

  private weights(suffix: string): Weights {
    const get = (name: string): Tensor | null => (Reflect.get(this, name + suffix) as Tensor | undefined) ?? null;
    return {
      weightIh: get('weightIh')!,
      weightHh: get('weightHh')!,
      biasIh: get('biasIh'),
      biasHh: get('biasHh'),
    };
  }

  /** The part of the gates that depends on inputs alone, for all steps at once; and what a step does with it. */
  protected abstract cell(input: Tensor, weights: Weights): [gates: Tensor, step: Step];

  /**
   * The last layer's outputs (L, N, D hiddenSize) and the states after the last step, each (D numLayers, N,
   * hiddenSize), with D = 2 directions if bidirectional, else 1; from input (L, N, inputSize) and initial states.
   */
  protected run(input: Tensor, initial: State): [output: Tensor, state: State] {
    const last: State[] = [];
    let sequence = input;
    for (let layer = 0; layer < this.numLayers; layer++) {
      if (layer > 0) sequence = dropout(sequence, this.dropout, { training: this.training });
      const outputs = this.suffixes(layer).map((suffix) => {
        const [gates, step] = this.cell(sequence, this.weights(suffix));
        const order = steps(gates);
        if (suffix.endsWith('Reverse')) order.reverse();
        let state: State = initial.map((t) => select(t, 0, last.length));
        const hidden = order.map((gate) => {
          state = step(gate, state);
          return state[0]!;
        });
        last.push(state);
        return stack(suffix.endsWith('Reverse') ? hidden.reverse() : hidden);
      });
      sequence = outputs.length > 1 ? cat(outputs, -1) : outputs[0]!;
    }
    return [sequence, initial.map((_, i) => stack(last.map((state) => state[i]!)))];
  }

  /** `run` for an input with or without batch, in either order of dimensions, and states to match or none. */
  protected unroll(input: Tensor, given: readonly (Tensor | undefined)[]): [output: Tensor, state: State] {
    const { name } = this.constructor;
    checkTensor(name, input);
    const batched = input.ndim === 3;
    if ((!batched && input.ndim !== 2) || input.shape.at(-1) !== this.inputSize) {
      const order = this.batchFirst ? '(N, L,' : '(L, N,';
      throw new ShapeError(
        `${name}: an input of shape ${show(input.shape)}. Expected ${order} ${this.inputSize}), or (L, ${this.inputSize}).`,
      );
    }
    const swap = batched && this.batchFirst;
    const sequence = batched ? (swap ? transpose(input, 0, 1) : input) : unsqueeze(input, 1);
    if (sequence.shape[0] === 0) throw new ShapeError(`${name}: a sequence of no steps: ${show(input.shape)}.`);
    const size = [this.numLayers * this.suffixes(0).length, sequence.shape[1]!, this.hiddenSize];
    const initial = given.map((state) => {
      if (state === undefined) return zeros(size, { dtype: input.dtype });
      checkTensor(name, state, 'initial state');
      const whole = batched ? state : unsqueeze(state, 1);
      if (sameShape(whole.shape, size)) return whole;
      const expected = batched ? size : [size[0]!, size[2]!];
      throw new ShapeError(`${name}: an initial state of shape ${show(state.shape)}. Expected ${show(expected)}.`);
    });
    const [output, state] = this.run(sequence, initial);
    if (!batched) return [squeeze(output, 1), state.map((t) => squeeze(t, 1))];
    return [swap ? transpose(output, 0, 1) : output, state];
  }
}

/** Both biases, for cells that add them anyway. */
const biasOf = ({ biasIh, biasHh }: Weights): Tensor | null => biasIh && add(biasIh, biasHh!);

export interface RNNOptions extends RecurrentOptions {
  nonlinearity?: 'tanh' | 'relu';
}

/**
 * h' = tanh(x Wihᵀ + bih + h Whhᵀ + bhh). Input (L, N, inputSize) or, without batch, (L, inputSize), and h0
 * (D numLayers, N, hiddenSize) or zeros; returns [outputs (L, N, D hiddenSize), h after the last step]. Elman 1990
 */
export class RNN extends Recurrent<Tensor> {
  readonly nonlinearity: 'tanh' | 'relu';

  constructor(inputSize: number, hiddenSize: number, options: RNNOptions = {}) {
    checkOptions('RNN', options, { ...OPTIONS, nonlinearity: 'tanh' });
    const { nonlinearity = 'tanh', ...rest } = options;
    if (nonlinearity !== 'tanh' && nonlinearity !== 'relu') {
      throw new ArgumentError(`RNN: nonlinearity is ${describe(nonlinearity)}. Expected 'tanh' or 'relu'.`);
    }
    super(inputSize, hiddenSize, 1, rest);
    this.nonlinearity = nonlinearity;
  }

  override forward(input: Tensor, h0?: Tensor): [output: Tensor, h: Tensor] {
    const [output, [h]] = this.unroll(input, [h0]);
    return [output, h!];
  }

  protected override cell(input: Tensor, weights: Weights): [gates: Tensor, step: Step] {
    const recurrent = transpose(weights.weightHh, 0, 1);
    const activate = this.nonlinearity === 'tanh' ? tanh : relu;
    return [linear(input, weights.weightIh, biasOf(weights)), (x, [h]) => [activate(addmm(x, h!, recurrent))]];
  }
}

/**
 * Long short-term memory, gates in the order input, forget, cell, output. As RNN, with a state of two tensors: takes
 * [h0, c0], returns [outputs, [h, c]]. Hochreiter & Schmidhuber 1997
 */
export class LSTM extends Recurrent<readonly [h: Tensor, c: Tensor]> {
  constructor(inputSize: number, hiddenSize: number, options: RecurrentOptions = {}) {
    checkOptions('LSTM', options, OPTIONS);
    super(inputSize, hiddenSize, 4, options);
  }

  override forward(input: Tensor, state?: readonly [h: Tensor, c: Tensor]): [Tensor, readonly [h: Tensor, c: Tensor]] {
    if (state !== undefined && !(Array.isArray(state) && state.length === 2)) {
      throw new ArgumentError(`LSTM: the initial state is ${describe(state)}. Expected [h0, c0].`);
    }
    const [output, [h, c]] = this.unroll(input, state ?? [undefined, undefined]);
    return [output, [h!, c!]];
  }

  protected override cell(input: Tensor, weights: Weights): [gates: Tensor, step: Step] {
    const recurrent = transpose(weights.weightHh, 0, 1);
    const step: Step = (x, [h, c]) => {
      const [input, forget, cell, output] = chunk(addmm(x, h!, recurrent), 4, 1) as [Tensor, Tensor, Tensor, Tensor];
      const next = add(mul(sigmoid(forget), c!), mul(sigmoid(input), tanh(cell)));
      return [mul(sigmoid(output), tanh(next)), next];
    };
    return [linear(input, weights.weightIh, biasOf(weights)), step];
  }
}

/**
 * Gated recurrent unit, gates in the order reset, update, new; the reset gate acts on h Whhᵀ + bhh. Otherwise as RNN.
 * Cho et al. 2014
 */
export class GRU extends Recurrent<Tensor> {
  constructor(inputSize: number, hiddenSize: number, options: RecurrentOptions = {}) {
    checkOptions('GRU', options, OPTIONS);
    super(inputSize, hiddenSize, 3, options);
  }

  override forward(input: Tensor, h0?: Tensor): [output: Tensor, h: Tensor] {
    const [output, [h]] = this.unroll(input, [h0]);
    return [output, h!];
  }

  protected override cell(input: Tensor, weights: Weights): [gates: Tensor, step: Step] {
    const parts = (gates: Tensor): Tensor[] => split(gates, [2 * this.hiddenSize, this.hiddenSize], 1);
    const step: Step = (x, [h]) => {
      const [resetUpdate, fresh] = parts(x) as [Tensor, Tensor];
      const [fromState, remembered] = parts(linear(h!, weights.weightHh, weights.biasHh)) as [Tensor, Tensor];
      const [reset, update] = chunk(sigmoid(add(resetUpdate, fromState)), 2, 1) as [Tensor, Tensor];
      const candidate = tanh(add(fresh, mul(reset, remembered)));
      return [add(candidate, mul(update, sub(h!, candidate)))];
    };
    return [linear(input, weights.weightIh, weights.biasIh), step];
  }
}
