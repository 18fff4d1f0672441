// summary: the table of a model's modules, against counting by hand.
import { inspect } from 'node:util';
import { describe, expect, it } from 'vitest';
import {
  ArgumentError,
  ChainruleError,
  cat,
  DTypeError,
  memoryStats,
  nn,
  relu,
  ShapeError,
  summary,
  type Tensor,
  tensor,
} from '../lib/index.ts';
import { thrownBy, values } from './support.ts';

class Block extends nn.Module {
  readonly layers: nn.Sequential;
  readonly scale = new nn.Parameter(tensor([1]));

  constructor(width: number) {
    super();
    this.layers = new nn.Sequential(new nn.Linear(width, width), new nn.ReLU());
  }

  override forward(x: Tensor): Tensor {
    return this.layers.call(x).mul(this.scale).add(x);
  }
}

const model = (): nn.Sequential => {
  const frozen = new nn.Linear(4, 3);
  for (const p of frozen.parameters()) p.requiresGrad_(false);
  return new nn.Sequential(frozen, new Block(3), new nn.Linear(3, 2));
};

describe('summary', () => {
  it('prints the modules in the order in which their calls began', () => {
    const table = summary(model(), [8, 4]);
    expect(String(table)).toBe(`module      type        output  parameters  trainable
Sequential  Sequential  [8,2]            -          -
  0         Linear      [8,3]           15         no
  1         Block       [8,3]            1        yes
    layers  Sequential  [8,3]            -          -
      0     Linear      [8,3]           12        yes
      1     ReLU        [8,3]            -          -
  2         Linear      [8,2]            8        yes

parameters: 36 (144 B)
trainable: 21
outputs of one forward pass: 448 B`);
    expect(inspect(table)).toBe(String(table));
    // 8 rows of 4 bytes: 3 of layer 0, of the linear layer, of the ReLU and of the block, and 2 of the last.
    expect(table.outputBytes).toBe(8 * 4 * (4 * 3 + 2));
    expect({ ...table, rows: table.rows.length }).toEqual({
      rows: 7,
      parameters: 36,
      trainable: 21,
      parameterBytes: 144,
      outputBytes: 448,
    });
    expect(table.rows[4]).toEqual({
      name: '1.layers.0',
      type: 'Linear',
      depth: 3,
      outputShapes: [[8, 3]],
      parameters: 12,
      trainable: 12,
    });
  });

  it('says how much of a layer is trainable, and groups thousands', () => {
    const layer = new nn.Linear(100, 50);
    layer.bias!.requiresGrad_(false);
    const lines = String(summary(layer, [100])).split('\n');
    expect(lines[1]).toBe('Linear  Linear  [50]         5,050      5,000');
    expect(lines[3]).toBe('parameters: 5,050 (19.7 KiB)');
  });

  it('has a row for each call, counts shared parameters once, and says which were not called', () => {
    class Tied extends nn.Module {
      readonly inner = new nn.Linear(3, 3);
      readonly again = this.inner;
      readonly idle = new nn.Linear(3, 5);
      readonly direct = new nn.Linear(3, 3, { bias: false });
      override forward(x: Tensor): Tensor {
        return this.direct.forward(this.again.call(this.inner.call(x)));
      }
    }
    const table = summary(new Tied(), [2, 3]);
    expect(table.rows.map(({ name, parameters }) => [name, parameters])).toEqual([
      ['Tied', 0],
      ['inner', 12],
      ['inner#2', 0],
    ]);
    expect(table.parameters).toBe(12 + 20 + 9);
    expect(String(table)).toContain('parameters: 41 (164 B), 29 of them in modules without a call');
  });

  it('counts memory that outputs share once, and inputs not at all', () => {
    const images = new nn.Sequential(new nn.Identity(), new nn.Conv2d(1, 2, 3), new nn.Flatten());
    expect(summary(images, [5, 1, 6, 6]).outputBytes).toBe(5 * 2 * 4 * 4 * 4);
  });

  it('shows all tensors that a layer returns', () => {
    const lstm = new nn.LSTM(3, 4, { batchFirst: true });
    expect(summary(lstm, [2, 5, 3]).rows[0]!.outputShapes).toEqual([
      [2, 5, 4],
      [1, 2, 4],
      [1, 2, 4],
    ]);
    expect(String(summary(lstm, [2, 5, 3]))).toContain('[2,5,4] [1,2,4] [1,2,4]');
  });

  it('takes several inputs, each of a dtype of its own', () => {
    class Pair extends nn.Module<[ids: Tensor, x: Tensor]> {
      readonly table = new nn.Embedding(10, 4);
      override forward(ids: Tensor, x: Tensor): Tensor {
        return cat([this.table.call(ids), x], -1);
      }
    }
    const shapes = [
      [2, 3],
      [2, 3, 6],
    ];
    const dtype = ['int32', 'float32'] as const;
    expect(summary(new Pair(), shapes, { dtype }).rows[0]!.outputShapes).toEqual([[2, 3, 10]]);
    expect(summary(new nn.Embedding(10, 4), [7], { dtype: 'int32' }).rows[0]!.outputShapes).toEqual([[7, 4]]);
    expect(summary(new nn.ReLU(), []).rows[0]!.outputShapes).toEqual([[]]);
  });

  it('changes nothing: modes, statistics, gradients, hooks, memory', () => {
    const seen: boolean[] = [];
    class Spy extends nn.Module {
      override forward(x: Tensor): Tensor {
        seen.push(this.training, x.requiresGrad);
        return x;
      }
    }
    const norm = new nn.BatchNorm1d(3);
    const whole = new nn.Sequential(new nn.Linear(4, 3), norm, new nn.Dropout(0.5), new Spy());
    norm.training = false;
    const mean = values(norm.runningMean!);
    summary(whole, [2, 4]);
    const live = memoryStats().liveTensors;
    summary(whole, [2, 4]);
    expect(memoryStats().liveTensors).toBe(live);
    expect(seen).toEqual([false, false, false, false]);
    expect([...whole.modules()].map(({ training }) => training)).toEqual([true, true, false, true, true]);
    expect(values(norm.runningMean!)).toEqual(mean);
    expect(() => summary(whole, [2, 5])).toThrow(ArgumentError);
    expect([...whole.modules()].map(({ training }) => training)).toEqual([true, true, false, true, true]);
  });

  it('names the innermost module that threw', () => {
    const wrong = new nn.Sequential(new nn.Linear(4, 3), new nn.Sequential(new nn.ReLU(), new nn.Linear(5, 2)));
    const error = thrownBy(() => summary(wrong, [8, 4])) as ArgumentError;
    expect(error).toBeInstanceOf(ArgumentError);
    expect(error.message).toMatch(/^summary: 1\.1 \(Linear\) threw for inputs of shape \[8,4\] to the model: linear: /);
    expect(error.cause).toBeInstanceOf(ShapeError);
    class Tries extends nn.Module {
      readonly bad = new nn.Linear(9, 9);
      readonly good = new nn.ReLU();
      override forward(x: Tensor): Tensor {
        try {
          this.bad.call(x);
        } catch {
          this.good.call(x);
        }
        throw new RangeError('own');
      }
    }
    const own = thrownBy(() => summary(new nn.Sequential(new Tries()), [2])) as Error;
    expect(own.message).toMatch(/^summary: 0 \(Tries\) threw .*: own$/);
  });

  it('has a row for a module that is no part of the model', () => {
    class Loose extends nn.Module {
      override forward(x: Tensor): Tensor {
        return relu(new nn.ReLU().call(x));
      }
    }
    expect(summary(new Loose(), [2]).rows.map(({ name, outputShapes }) => [name, outputShapes])).toEqual([
      ['Loose', [[2]]],
      ['ReLU', []],
    ]);
  });

  it('refuses what is no model, no shape, no dtype', () => {
    const refusals: [() => unknown, new (message: string) => ChainruleError, RegExp][] = [
      [() => summary({} as never, [1]), ArgumentError, /summary: the model is a Object. Expected a module/],
      [() => summary(new nn.ReLU(), 3 as never), ArgumentError, /summary: the shape is 3/],
      [() => summary(new nn.ReLU(), [2, -1]), ArgumentError, /summary: size 1 of the shape is -1/],
      [() => summary(new nn.ReLU(), [1e6, 1e6]), ShapeError, /summary: size overflows/],
      [() => summary(new nn.ReLU(), [2], { dtype: 'double' as never }), DTypeError, /unknown dtype "double"/],
      [() => summary(new nn.ReLU(), [2], { dtype: ['float32', 'int32'] }), ArgumentError, /2 dtypes for 1 inputs/],
      [() => summary(new nn.ReLU(), [2], { device: 'x' } as never), ArgumentError, /unknown option "device"/],
    ];
    for (const [fn, type, message] of refusals) {
      const error = thrownBy(fn);
      expect(error).toBeInstanceOf(type);
      expect(error).toBeInstanceOf(ChainruleError);
      expect((error as Error).message).toMatch(message);
    }
  });
});
