// Bench layer: TensorFlow.js, over its plain JavaScript and over its WebAssembly.
import { optional, type Rival, type Trainer, type Training } from './rival.ts';

interface Disposable {
  dispose(): void;
  dataSync(): Float32Array;
}
type Value = Disposable;

/** As far as it is used here. */
interface Tf {
  setBackend(name: string): Promise<boolean>;
  ready(): Promise<void>;
  tensor(values: Float32Array, shape: readonly number[]): Value;
  variable(value: Value): Value;
  matMul(a: Value, b: Value): Value;
  add(a: Value, b: Value): Value;
  relu(a: Value): Value;
  mean(a: Value): Value;
  squaredDifference(a: Value, b: Value): Value;
  losses: { softmaxCrossEntropy(target: Value, logits: Value): Value };
  train: { sgd(rate: number): { minimize(loss: () => Value, returnCost: boolean, variables: Value[]): void } };
  tidy<T>(fn: () => T): T;
}

function trainer(tf: Tf, { sizes, batch, loss, rate, x, target, weights }: Training): Trainer {
  const input = tf.tensor(x, [batch, sizes[0]!]);
  const wanted = tf.tensor(target, [batch, sizes.at(-1)!]);
  const layers = weights.map((values, i) => ({
    weight: tf.variable(tf.tensor(values, [sizes[i]!, sizes[i + 1]!])),
    bias: tf.variable(tf.tensor(new Float32Array(sizes[i + 1]!), [sizes[i + 1]!])),
  }));
  const forward = (): Value => {
    let h = input;
    for (const [i, { weight, bias }] of layers.entries()) {
      h = tf.add(tf.matMul(h, weight), bias);
      if (i + 1 < layers.length) h = tf.relu(h);
    }
    return loss === 'ce' ? tf.losses.softmaxCrossEntropy(wanted, h) : tf.mean(tf.squaredDifference(h, wanted));
  };
  const optimizer = tf.train.sgd(rate);
  const variables = layers.flatMap(({ weight, bias }) => [weight, bias]);
  return {
    run: () => optimizer.minimize(forward, false, variables),
    loss: () => tf.tidy(() => forward().dataSync()[0]!),
  };
}

export async function tfjs(backend: 'cpu' | 'wasm'): Promise<Rival | undefined> {
  // With its gradients and its backend in JavaScript; without either it is tfjs-core.
  const tf = await optional<Tf>('@tensorflow/tfjs');
  if (!tf || (backend === 'wasm' && !(await optional('@tensorflow/tfjs-backend-wasm')))) return undefined;
  // One backend is in force at a time.
  const ready = async (): Promise<void> => {
    await tf.setBackend(backend);
    await tf.ready();
  };
  await ready();
  return {
    ready,
    name: `TensorFlow.js ${backend}`,
    largest: backend === 'cpu' ? 256 ** 3 : 1024 ** 3,
    multiply: ({ batch, m, n, k }, a, b) => {
      const lead = batch > 1 ? [batch] : [];
      const [x, y] = [tf.tensor(a, [...lead, m, k]), tf.tensor(b, [...lead, k, n])];
      return {
        run: () => tf.matMul(x, y).dispose(),
        result: async () => tf.tidy(() => tf.matMul(x, y).dataSync()),
      };
    },
    train: async (training) => trainer(tf, training),
  };
}
