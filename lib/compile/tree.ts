// Arguments and results of compiled functions: tensors in trees of arrays and plain objects. Layer compile.
import { CaptureError } from '../errors.ts';
import { Tensor } from '../tensor.ts';

/** A tree with a Place instead of each tensor. */
export type Skeleton = unknown;

class Place {
  readonly index: number;

  constructor(index: number) {
    this.index = index;
  }
}

const isPlain = (value: unknown): value is Record<string, unknown> => {
  if (typeof value !== 'object' || value === null) return false;
  const prototype = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
};

/**
 * The tree with a place for each tensor; the tensors are added to `tensors`.
 * @throws CaptureError for objects in which tensors could change unseen
 */
export function takeApart(tree: unknown, tensors: Tensor[], what: string): Skeleton {
  if (tree instanceof Tensor) return new Place(tensors.push(tree) - 1);
  if (Array.isArray(tree)) return tree.map((entry) => takeApart(entry, tensors, what));
  if (isPlain(tree)) {
    return Object.fromEntries(Object.entries(tree).map(([key, entry]) => [key, takeApart(entry, tensors, what)]));
  }
  if (typeof tree !== 'object' || tree === null) return tree;
  throw new CaptureError(
    `compile: ${what} has a ${tree.constructor?.name ?? 'foreign object'} in it. Expected tensors, numbers, strings, and ` +
      'arrays and plain objects of them: pass what is in it, or let the function find it outside.',
  );
}

/** The tree with tensors in their places. */
export function putTogether(skeleton: Skeleton, tensors: readonly unknown[]): unknown {
  if (skeleton instanceof Place) return tensors[skeleton.index];
  if (Array.isArray(skeleton)) return skeleton.map((entry) => putTogether(entry, tensors));
  if (!isPlain(skeleton)) return skeleton;
  return Object.fromEntries(Object.entries(skeleton).map(([key, entry]) => [key, putTogether(entry, tensors)]));
}

/**
 * Adds the tensors of a tree to `tensors` if it has the skeleton's form and is equal to it where there is no tensor;
 * else returns false.
 */
export function matches(skeleton: Skeleton, tree: unknown, tensors: Tensor[]): boolean {
  if (tree instanceof Tensor) {
    tensors.push(tree);
    return skeleton instanceof Place;
  }
  if (Array.isArray(skeleton)) {
    return (
      Array.isArray(tree) &&
      tree.length === skeleton.length &&
      skeleton.every((entry, i) => matches(entry, tree[i], tensors))
    );
  }
  if (!isPlain(skeleton)) return Object.is(skeleton, tree);
  if (!isPlain(tree)) return false;
  const keys = Object.keys(skeleton);
  return (
    Object.keys(tree).length === keys.length &&
    keys.every((key) => Object.hasOwn(tree, key) && matches(skeleton[key], tree[key], tensors))
  );
}
