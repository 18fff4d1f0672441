// Bench layer: jax-js over WebAssembly, compiled by its jit. A use of an array consumes a reference, which `ref` adds.
import { optional, type Rival, type Trainer, type Training } from './rival.ts';

interface Value {
  readonly ref: Value;
  reshape(shape: readonly number[]): Value;
  add(other: Value): Value;
  sub(other: Value): Value;
  mul(other: Value | number): Value;
  sum(): Value;
  mean(): Value;
  dataSync(): Float32Array;
  blockUntilReady(): Promise<Value>;
  dispose(): void;
}
type Parameters = { weights: Value[]; biases: Value[] };

/** As far as it is used here. */
interface Jax {
  defaultDevice(name: string): void;
  init?(name: string): Promise<unknown>;
  jit<F>(fn: F): F;
  valueAndGrad<R extends unknown[]>(
    fn: (p: Parameters, ...rest: R) => Value,
  ): (p: Parameters, ...rest: R) => [Value, Parameters];
  numpy: { array(values: Float32Array): Value; matmul(a: Value, b: Value): Value; square(a: Value): Value };
  nn: { relu(a: Value): Value; logSoftmax(a: Value): Value };
  tree: { ref<T>(tree: T): T };
  blockUntilReady(tree: unknown): Promise<unknown>;
}

function trainer(jax: Jax, { sizes, batch, loss, rate, x, target, weights }: Training): Trainer {
  const { numpy, nn, tree } = jax;
  const array = (values: Float32Array, shape: readonly number[]): Value => numpy.array(values).reshape(shape);
  const input = array(x, [batch, sizes[0]!]);
  const wanted = array(target, [batch, sizes.at(-1)!]);
  let parameters: Parameters = {
    weights: weights.map((values, i) => array(values, [sizes[i]!, sizes[i + 1]!])),
    biases: weights.map((_, i) => array(new Float32Array(sizes[i + 1]!), [sizes[i + 1]!])),
  };
  const forward = (p: Parameters, from: Value, to: Value): Value => {
    let h = from;
    for (const [i, weight] of p.weights.entries()) {
      h = numpy.matmul(h, weight).add(p.biases[i]!);
      if (i + 1 < p.weights.length) h = nn.relu(h);
    }
    if (loss === 'mse') return numpy.square(h.sub(to)).mean();
    return nn
      .logSoftmax(h)
      .mul(to)
      .sum()
      .mul(-1 / batch);
  };
  const both = jax.valueAndGrad(forward);
  const step = jax.jit((p: Parameters, from: Value, to: Value): [Value, Parameters] => {
    const [value, g] = both(tree.ref(p), from, to);
    const less = (values: Value[], by: Value[]): Value[] => values.map((each, i) => each.sub(by[i]!.mul(rate)));
    return [value, { weights: less(p.weights, g.weights), biases: less(p.biases, g.biases) }];
  });
  return {
    run: async () => {
      const [value, next] = step(parameters, input.ref, wanted.ref);
      parameters = next;
      await jax.blockUntilReady([value, parameters]);
      value.dispose();
    },
    loss: () => forward(tree.ref(parameters), input.ref, wanted.ref).dataSync()[0]!,
  };
}

export async function jax(): Promise<Rival | undefined> {
  const library = await optional<Jax>('@jax-js/jax');
  if (!library) return undefined;
  await library.init?.('wasm');
  library.defaultDevice('wasm');
  const { numpy, jit } = library;
  return {
    name: 'jax-js',
    largest: 1024 ** 3,
    multiply: ({ batch, m, n, k }, a, b) => {
      const lead = batch > 1 ? [batch] : [];
      const x = numpy.array(a).reshape([...lead, m, k]);
      const y = numpy.array(b).reshape([...lead, k, n]);
      const product = jit((left: Value, right: Value) => numpy.matmul(left, right));
      return {
        run: async () => {
          const c = product(x.ref, y.ref);
          await c.blockUntilReady();
          c.dispose();
        },
        result: async () => product(x.ref, y.ref).dataSync(),
      };
    },
    train: async (training) => trainer(library, training),
  };
}
