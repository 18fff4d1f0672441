// The MNIST job (shuffled batches, dropout, Adam, a rate that decays, an epoch that ends in a smaller batch): ordinary,
// compiled, beside the event loop and both end in the same bits.
import { expect, it } from 'vitest';
import { CLASSES, loadMnist, PIXELS } from '../examples/mnist/mnist.ts';
import { compile, crossEntropy, data, manualSeed, nn, optim, run, type Tensor } from '../lib/index.ts';
import { bitsOf, trainingStep } from './support.ts';

const IMAGES = 1000;

type Step = (images: Tensor, labels: Tensor) => Tensor;

async function train(
  how: (step: Step) => (images: Tensor, labels: Tensor) => Tensor | Promise<Tensor>,
): Promise<string[]> {
  manualSeed(42);
  const [images, labels] = new data.DataLoader(loadMnist('t10k'), { batchSize: IMAGES })[Symbol.iterator]().next()
    .value!;
  const layers = [new nn.Linear(PIXELS, 64), new nn.ReLU(), new nn.Dropout(0.1), new nn.Linear(64, CLASSES)];
  const model = new nn.Sequential(...layers);
  const optimizer = new optim.Adam(model.parameters(), { lr: 1e-3 });
  const loader = new data.DataLoader(new data.TensorDataset(images, labels), { batchSize: 64, shuffle: true });
  const step = how(trainingStep(optimizer, (x, y) => crossEntropy(model.call(x), y)));
  const losses: Tensor[] = [];
  for (let epoch = 0; epoch < 2; epoch++) {
    for (const [x, y] of loader) losses.push(await step(x, y));
    for (const group of optimizer.paramGroups) group.lr *= 0.6;
  }
  expect(Number(losses.at(-1)!.item())).toBeLessThan(0.6 * Number(losses[0]!.item()));
  return [...losses, ...model.stateDict().values()].map(bitsOf);
}

it('the job ends in the same bits, however it is run', async () => {
  const expected = await train((step) => step);
  expect(await train((step) => compile(step))).toEqual(expected);
  expect(await train((step) => compile(step).async)).toEqual(expected);
  expect(await train((step) => (x, y) => run(() => step(x, y)))).toEqual(expected);
});
