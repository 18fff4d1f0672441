// A reader of handwritten digits that learns while it serves: a network, with what is asked of it compiled and run
// beside the event loop.
//
// One queue in order serves predictions and training alike. So each prediction is made with the weights that some whole
// step left, and waits for the step under way, if there is one. That is why steps are short: see BATCH.
import {
  compile,
  crossEntropy,
  Generator,
  nn,
  noGrad,
  optim,
  randint,
  scope,
  type Tensor,
  tensor,
  where,
} from '../../lib/index.ts';
import { CLASSES, type Mnist, PIXELS, scale } from '../mnist/mnist.ts';

/**
 * Digits in a step, and at most in a request to learn. A step of 64 takes 0.5 ms on a core of a Xeon with AVX-512, and a
 * prediction that comes meanwhile waits for as long; one of 1024 would let it wait for 3.5 ms.
 */
export const BATCH = 64;
const HIDDEN = 128;
/** The weight of the latest step in the averages. */
const LATEST = 0.02;

/** Pixels from 0 to 255, row by row, and what they show. */
export interface Example {
  pixels: readonly number[];
  label: number;
}

export interface Prediction {
  digit: number;
  probabilities: number[];
}

interface Outcome {
  loss: Tensor;
  accuracy: Tensor;
}

export class Learner {
  readonly network = new nn.Sequential(new nn.Linear(PIXELS, HIDDEN), new nn.ReLU(), new nn.Linear(HIDDEN, CLASSES));
  readonly optimizer = new optim.Adam(this.network.parameters());
  /** Draws from the data set. */
  readonly generator: Generator;
  /** Whole steps, also those before a restart. */
  steps = 0;
  /** Averages over the last steps: of the loss, and of the share of digits read right before the step learned from them. */
  readonly average = { loss: NaN, accuracy: NaN };
  /** Predictions and steps that are under way or wait their turn. */
  inFlight = 0;

  readonly #digits: Mnist;
  readonly #predict = compile((pixels: Tensor) => noGrad(() => this.network.call(scale(pixels)).softmax(1)));
  readonly #train = compile(() => this.#update(...this.#draw()));
  readonly #learn = compile((pixels: Tensor, labels: Tensor) => {
    const given = labels.ge(0);
    const [images, names] = this.#draw();
    return this.#update(where(given.unsqueeze(1), scale(pixels), images), where(given, labels, names));
  });

  constructor(digits: Mnist, seed: number) {
    this.#digits = digits;
    this.generator = new Generator(seed);
  }

  predict(pixels: readonly number[]): Promise<Prediction> {
    return this.#enqueue(async () => {
      const given = tensor(Uint8Array.from(pixels), { shape: [1, PIXELS] });
      const [probabilities] = (await this.#predict.async(given)).toArray() as [number[]];
      return { digit: probabilities.indexOf(Math.max(...probabilities)), probabilities };
    });
  }

  /** A step on a batch of the data set. */
  train(signal: AbortSignal): Promise<void> {
    return this.#enqueue(async () => this.#follow(await this.#train.async({ signal })));
  }

  /**
   * A step on these examples, at most BATCH, filled up from the data set: the network shall not forget what else it has
   * seen, and one shape for any number of examples is one recording.
   */
  learn(examples: readonly Example[]): Promise<void> {
    return this.#enqueue(async () => {
      const pixels = new Uint8Array(BATCH * PIXELS);
      const labels = new Int32Array(BATCH).fill(-1);
      for (const [i, example] of examples.entries()) {
        pixels.set(example.pixels, i * PIXELS);
        labels[i] = example.label;
      }
      this.#follow(await this.#learn.async(tensor(pixels, { shape: [BATCH, PIXELS] }), tensor(labels)));
    });
  }

  // ---- inside the compiled functions ----------------------------------------------------------------------------------
  /** The digits are drawn and fetched in the program, which costs the event loop nothing. */
  #draw(): [Tensor, Tensor] {
    return this.#digits.getBatch(randint(0, this.#digits.length, [BATCH], { generator: this.generator }));
  }

  #update(images: Tensor, labels: Tensor): Outcome {
    const scores = this.network.call(images);
    const loss = crossEntropy(scores, labels);
    this.optimizer.zeroGrad();
    loss.backward();
    this.optimizer.step();
    return { loss, accuracy: scores.argmax(1).eq(labels).to('float32').mean() };
  }

  // ---- around them ----------------------------------------------------------------------------------------------------
  #follow(outcome: Outcome): void {
    this.steps++;
    for (const name of ['loss', 'accuracy'] as const) {
      const [before, value] = [this.average[name], outcome[name].item()];
      this.average[name] = Number.isNaN(before) ? value : before + LATEST * (value - before);
    }
  }

  /** Counts what is in flight, and frees its tensors afterwards. */
  async #enqueue<T>(work: () => Promise<T>): Promise<T> {
    this.inFlight++;
    try {
      return await scope(work);
    } finally {
      this.inFlight--;
    }
  }
}
