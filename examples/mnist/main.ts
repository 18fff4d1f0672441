// Trains a network of three layers to read handwritten digits, saves it, and proves that what was saved is what was
// trained: `npm start`, or `npm start -- --help`.
import path from 'node:path';
import {
  buildInfo,
  compile,
  data,
  io,
  manualSeed,
  nn,
  noGrad,
  optim,
  setNumThreads,
  type Tensor,
} from '../../lib/index.ts';
import { prepareOutput, runMain } from '../command-line.ts';
import { CLASSES, createModel, loadMnist, type Mnist } from './mnist.ts';
import { type Options, parseOptions, USAGE } from './options.ts';
import { accuracyOf, type Confusion, confusionTable, Progress, percent } from './report.ts';
import { Telemetry } from './telemetry.ts';

/** Of one epoch to that of the next. */
const LR_DECAY = 0.6;
/** Images whose gradients are looked at after each epoch. */
const PROBED = 1000;

/** Trains for the epochs asked for, or until the signal and the end of the step. */
async function train(model: nn.Sequential, training: Mnist, test: Mnist, options: Options, signal: AbortSignal) {
  using telemetry = new Telemetry(options.tensorboard, options.metrics);
  const criterion = new nn.CrossEntropyLoss();
  const optimizer = new optim.Adam(model.parameters(), { lr: options.lr });
  const loader = new data.DataLoader(training, { batchSize: options.batch, shuffle: true });
  const progress = new Progress();
  const step = compile((images: Tensor, labels: Tensor) => {
    const loss = criterion.call(model.call(images), labels);
    optimizer.zeroGrad();
    loss.backward();
    optimizer.step();
    return loss;
  });
  const [images, labels] = training.tensors.map((t) => t.narrow(0, 0, PROBED)) as [Tensor, Tensor];
  const probe = () => criterion.call(model.call(images), labels);
  telemetry.graph(model, probe);

  for (let epoch = 1; epoch <= options.epochs; epoch++) {
    progress.start(epoch, loader.length);
    // With for await the event loop turns between batches, so that Ctrl-C is seen.
    for await (const [images, labels] of loader) {
      const loss = step(images, labels).item();
      progress.step(loss);
      telemetry.step(loss);
      if (signal.aborted) break;
    }
    const { loss, seconds } = progress.stop();
    if (signal.aborted) break;

    const { lr } = optimizer.paramGroups[0]!;
    const [trained, tested] = [training, test].map((part) => accuracyOf(evaluate(model, part))) as [number, number];
    console.log(
      `epoch ${epoch}/${options.epochs}  loss ${loss.toFixed(4)}  train ${percent(trained)}  test ${percent(tested)}  ` +
        `${seconds.toFixed(2)} s`,
    );
    const metrics = { epoch, loss, lr, 'accuracy/train': trained, 'accuracy/test': tested, seconds };
    telemetry.epoch(metrics, model, probe);
    for (const group of optimizer.paramGroups) group.lr *= LR_DECAY;
  }
  return progress;
}

function evaluate(model: nn.Sequential, digits: Mnist): Confusion {
  const confusion: Confusion = Array.from({ length: CLASSES }, () => new Array(CLASSES).fill(0));
  model.eval();
  noGrad(() => {
    for (const [images, labels] of new data.DataLoader(digits, { batchSize: 1000 })) {
      const guesses = model.call(images).argmax(1).toTypedArray();
      for (const [i, digit] of labels.toTypedArray().entries()) confusion[digit]![guesses[i]!]!++;
    }
  });
  model.train();
  return confusion;
}

async function main(args: string[]): Promise<void> {
  const options = parseOptions(args);
  if (options.help) return console.log(USAGE);
  prepareOutput(options.out);
  if (options.metrics !== null) prepareOutput(options.metrics, '--metrics');
  if (options.tensorboard !== null) prepareOutput(path.join(options.tensorboard, 'events'), '--tensorboard');
  if (options.threads !== null) setNumThreads(options.threads);
  manualSeed(options.seed);
  const interrupt = new AbortController();
  process.once('SIGINT', () => interrupt.abort());

  const training = loadMnist('train');
  const test = loadMnist('t10k');
  const { isa, threads } = buildInfo();
  console.log(
    `MNIST: ${training.length} images to learn from, ${test.length} to be judged by (${isa}, threads: ${threads})`,
  );

  const model = createModel();
  const { steps, seconds } = await train(model, training, test, options, interrupt.signal);
  io.saveSafetensors(options.out, model.stateDict(), { steps: String(steps), seed: String(options.seed) });
  if (interrupt.signal.aborted) {
    console.log(`Interrupted. The weights after ${steps} steps are in ${options.out}.`);
    process.exitCode = 130;
    return;
  }

  const confusion = evaluate(model, test);
  const copy = createModel();
  copy.loadStateDict(io.loadSafetensors(options.out).tensors);
  const [accuracy, copied] = [accuracyOf(confusion), accuracyOf(evaluate(copy, test))];
  if (accuracy !== copied)
    throw new Error(`trained to ${percent(accuracy)}, but the saved weights reach ${percent(copied)}`);

  console.log(
    `\nTest images, what they are (rows) and what they were read as (columns):\n\n${confusionTable(confusion)}\n`,
  );
  console.log(`Test accuracy ${percent(accuracy)}, and the same with the weights read back from ${options.out}.`);
  console.log(`Trained ${steps} steps in ${seconds.toFixed(1)} s: ${(steps / seconds).toFixed(0)} steps/s.`);
}

await runMain(main, USAGE);
