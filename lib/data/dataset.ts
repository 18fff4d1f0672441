// Dataset: samples by index; TensorDataset: rows of tensors. Layer data: the public tensor API only.
import { ArgumentError, ShapeError } from '../errors.ts';
import { indexSelect, select } from '../ops/index.ts';
import { show } from '../shape.ts';
import type { Tensor } from '../tensor.ts';

/** Implement it with a class of your own; `Sample` is what `get` returns. */
export interface Dataset<Sample, Batch = Collated<Sample>> {
  readonly length: number;
  get(index: number): Sample;
  /** If there is a faster way to a batch than collating samples: int32 indices to batch. */
  getBatch?(indices: Tensor): Batch;
}

/** What `collate` makes of samples: tensors are stacked, numbers become a tensor, arrays and objects go by member. */
export type Collated<Sample> = Sample extends number | boolean | Tensor
  ? Tensor
  : Sample extends string | bigint | null | undefined
    ? Sample[]
    : { [Key in keyof Sample]: Collated<Sample[Key]> };

/** Sample i is the list of the i-th rows of all tensors. */
export class TensorDataset<Tensors extends readonly Tensor[]> implements Dataset<Rows<Tensors>, Rows<Tensors>> {
  readonly tensors: Tensors;
  readonly length: number;

  constructor(...tensors: Tensors) {
    const [first] = tensors;
    if (first === undefined) throw new ArgumentError('TensorDataset: got no tensors.');
    for (const { shape } of tensors) {
      if (shape.length > 0 && shape[0] === first.shape[0]) continue;
      throw new ShapeError(
        `TensorDataset: shapes ${tensors.map(({ shape }) => show(shape)).join(' and ')}. Expected equal first sizes.`,
      );
    }
    this.tensors = tensors;
    this.length = first.shape[0]!;
  }

  get(index: number): Rows<Tensors> {
    return this.tensors.map((tensor) => select(tensor, 0, index)) as Rows<Tensors>;
  }

  getBatch(indices: Tensor): Rows<Tensors> {
    return this.tensors.map((tensor) => indexSelect(tensor, 0, indices)) as Rows<Tensors>;
  }
}

type Rows<Tensors extends readonly Tensor[]> = { -readonly [Key in keyof Tensors]: Tensor };
