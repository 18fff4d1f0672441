// The graph behind a tensor as TensorBoard draws graphs: a GraphDef. Layer io; reads the tape and changes nothing.
import { edgeOf, isAccumulator, type Node } from '../autograd/tape.ts';
import { reachable } from '../autograd/walk.ts';
import { DTYPES, type DType } from '../dtype.ts';
import { AutogradError } from '../errors.ts';
import { show } from '../shape.ts';
import type { Tensor } from '../tensor.ts';
import { int, message, text } from './protobuf.ts';

/** The format's numbers for dtypes. */
const DTYPE_NUMBERS: Readonly<Record<DType, number>> = {
  float32: 1,
  float64: 2,
  int32: 3,
  uint8: 4,
  bool: 10,
  bfloat16: 14,
};

/** Of the format: says how attributes are to be read. */
const VERSION = 22;

/** @throws AutogradError when there is no graph */
export function graphDef(op: string, output: Tensor, named: Iterable<readonly [string, Tensor]>): Buffer {
  if (output.gradFn === null) {
    throw new AutogradError(
      `${op}: no graph is behind the tensor of shape ${show(output.shape)}. Give it one that was computed from what ` +
        'requires grad, outside of noGrad() and of compiled functions.',
    );
  }
  const paths = new Map([...named].map(([path, tensor]) => [edgeOf(tensor), path]));
  const names = new Map<Node, string>();
  const unique = uniqueNames();
  const nodes = reachable([output.gradFn]).reverse();
  for (const node of nodes) names.set(node, unique(baseName(node, paths.get(node))));
  const version = message(4, int(1, VERSION));
  return Buffer.concat([...nodes.map((node) => message(1, nodeDef(node, names))), version]);
}

/** What the node undoes, in the forward direction that the picture has: `Mul` for `MulBackward`. */
const kindOf = (node: Node): string => (isAccumulator(node) ? 'Leaf' : node.name.replace(/Backwards?$/, ''));

/** `encoder.0.weight` as `encoder/0/weight`, which is drawn as boxes in boxes. */
function baseName(node: Node, path = ''): string {
  const parts = path.split(/[./]/).filter((part) => part !== '');
  return parts.map((part) => part.replace(/\W/g, '_')).join('/') || kindOf(node);
}

function nodeDef(node: Node, names: ReadonlyMap<Node, string>): Buffer {
  const inputs = node.edges.flatMap((edge) => (edge === null ? [] : [text(3, names.get(edge)!)]));
  const shape = node.shape.map((size) => message(2, int(1, size)));
  return Buffer.concat([
    text(1, names.get(node)!),
    text(2, kindOf(node)),
    ...inputs,
    attribute('_output_shapes', message(1, message(7, ...shape))),
    attribute('T', int(6, DTYPE_NUMBERS[DTYPES[node.code]!])),
  ]);
}

/** An entry of a map. */
const attribute = (name: string, value: Buffer): Buffer => message(5, text(1, name), message(2, value));

/** `Mul`, `Mul_1`, `Mul_2`. */
function uniqueNames(): (base: string) => string {
  const taken = new Set<string>();
  const counts = new Map<string, number>();
  return (base) => {
    let count = counts.get(base) ?? 0;
    const numbered = (): string => (count === 0 ? base : `${base}_${count}`);
    while (taken.has(numbered())) count++;
    const name = numbered();
    counts.set(base, count + 1);
    taken.add(name);
    return name;
  };
}
