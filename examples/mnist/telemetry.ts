// What the MNIST example writes while it trains: TensorBoard's files with --tensorboard, lines of JSON with --metrics.
import { gradientFlow, io, type nn, type Tensor } from '../../lib/index.ts';

/** Where nothing is asked for, methods do nothing. */
export class Telemetry {
  readonly #writer: io.SummaryWriter | null;
  readonly #log: io.MetricsLog | null;
  #steps = 0;

  constructor(tensorboard: string | null, metrics: string | null) {
    this.#writer = tensorboard === null ? null : new io.SummaryWriter(tensorboard);
    this.#log = metrics === null ? null : new io.MetricsLog(metrics);
  }

  /** The graph behind a loss of the model. */
  graph(model: nn.Sequential, loss: () => Tensor): void {
    this.#writer?.addGraph(loss(), model.namedParameters());
  }

  step(loss: number): void {
    this.#steps++;
    this.#writer?.addScalar('loss/step', loss, this.#steps);
  }

  /** What came out of an epoch, the gradients of the weights for `loss`, and the weights. */
  epoch(metrics: Readonly<Record<string, number>>, model: nn.Sequential, loss: () => Tensor): void {
    if (this.#writer === null && this.#log === null) return;
    const step = this.#steps;
    const all = { ...metrics };
    for (const { name, weightGradNorm } of gradientFlow(model, loss)) {
      if (weightGradNorm !== null) all[`gradient/${name}`] = weightGradNorm;
    }
    this.#log?.log({ step, ...all });
    if (this.#writer === null) return;
    for (const [name, value] of Object.entries(all)) this.#writer.addScalar(name, value, step);
    for (const [name, parameter] of model.namedParameters()) this.#writer.addHistogram(name, parameter, step);
    this.#writer.flush();
  }

  [Symbol.dispose](): void {
    this.#writer?.close();
    this.#log?.close();
  }
}
