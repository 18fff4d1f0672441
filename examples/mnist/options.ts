// The command line of the MNIST example.
import { integer, parse, positive, text } from '../command-line.ts';

export const USAGE = `Usage: npm start -- [options]

  --epochs N     passes over the training set (default 6)
  --batch N      images per step (default 128)
  --lr X         learning rate of the first epoch (default 0.001)
  --seed N       of the weights and of the order of the images (default 42)
  --threads N    default: what the machine, or the container, has
  --out FILE     where to save the weights (default runs/mnist.safetensors)
  --tensorboard DIR
                 curves, histograms of the weights and the graph, for TensorBoard
  --metrics FILE the numbers of each epoch, appended as lines of JSON
  --help         show this`;

export interface Options {
  epochs: number;
  batch: number;
  lr: number;
  seed: number;
  threads: number | null;
  out: string;
  tensorboard: string | null;
  metrics: string | null;
  help: boolean;
}

const OPTIONS = {
  epochs: text('6'),
  batch: text('128'),
  lr: text('0.001'),
  seed: text('42'),
  threads: { type: 'string' },
  out: text('runs/mnist.safetensors'),
  tensorboard: { type: 'string' },
  metrics: { type: 'string' },
  help: { type: 'boolean', short: 'h', default: false },
} as const;

export function parseOptions(args: string[]): Options {
  const values = parse(args, OPTIONS);
  return {
    epochs: integer('epochs', values.epochs, 1, 1000),
    batch: integer('batch', values.batch, 1, 60_000),
    lr: positive('lr', values.lr),
    seed: integer('seed', values.seed, 0, 2 ** 32 - 1),
    threads: values.threads === undefined ? null : integer('threads', values.threads, 1, 1024),
    out: values.out,
    tensorboard: values.tensorboard ?? null,
    metrics: values.metrics ?? null,
    help: values.help,
  };
}
