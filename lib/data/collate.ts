// collate: a list of samples to a batch of the same structure. Layer data.
import { ArgumentError } from '../errors.ts';
import { stack, tensor } from '../ops/index.ts';
import { Tensor } from '../tensor.ts';
import type { Collated } from './dataset.ts';

/** Numbers become float32, booleans bool: a sample with another dtype in mind holds a tensor. */
export function collate<Sample>(samples: readonly Sample[]): Collated<Sample> {
  return join(samples) as Collated<Sample>;
}

function join(samples: readonly unknown[]): unknown {
  const [first] = samples;
  if (first instanceof Tensor) return stack(samples as Tensor[]);
  if (typeof first === 'number') return tensor(samples as number[]);
  if (typeof first === 'boolean') return tensor((samples as boolean[]).map(Number), { dtype: 'bool' });
  if (typeof first !== 'object' || first === null) return samples;

  const keys = Object.keys(first);
  const columns = keys.map((key) => join(samples.map((sample) => memberOf(sample, key, keys.length))));
  return Array.isArray(first) ? columns : Object.fromEntries(keys.map((key, i) => [key, columns[i]]));
}

function memberOf(sample: unknown, key: string, size: number): unknown {
  if (
    typeof sample === 'object' &&
    sample !== null &&
    Object.hasOwn(sample, key) &&
    Object.keys(sample).length === size
  ) {
    return (sample as Record<string, unknown>)[key];
  }
  throw new ArgumentError(`collate: samples differ in structure: only some have ${size} members, '${key}' among them.`);
}
