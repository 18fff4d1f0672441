// Parameter: a leaf tensor that a module owns and an optimizer updates. Layer nn; no behaviour of its own.
import { Tensor, track } from '../tensor.ts';

/** Shares memory with `data`, outside data's graph. */
export class Parameter extends Tensor {
  constructor(data: Tensor, { requiresGrad = true } = {}) {
    const { storage, shape, strides, offset, numel, code, isContiguous } = data;
    super(storage, shape, strides, offset, numel, code, isContiguous, storage.graphVersion);
    storage.owners++;
    track(this);
    this.requiresGrad_(requiresGrad);
  }
}
