// What the MNIST example prints: a bar while it trains, a line per epoch, the confusion matrix.
import { SingleBar } from 'cli-progress';

/** `confusion[digit][guess]` counts the images of `digit` that were read as `guess`. */
export type Confusion = number[][];

export function accuracyOf(confusion: Confusion): number {
  const right = confusion.reduce((sum, row, digit) => sum + row[digit]!, 0);
  return right / confusion.flat().reduce((sum, count) => sum + count, 0);
}

export const percent = (fraction: number): string => `${(100 * fraction).toFixed(2)} %`;

/** Rows are what the image is, columns what the model read. */
export function confusionTable(confusion: Confusion): string {
  const width = Math.max(...confusion.flat().map((count) => String(count).length)) + 2;
  const line = (head: string, cells: readonly (string | number)[]) =>
    head.padStart(6) + cells.map((cell) => String(cell).padStart(width)).join('');
  return [
    line(
      '',
      confusion.map((_, digit) => digit),
    ),
    ...confusion.map((row, digit) =>
      line(
        String(digit),
        row.map((count) => (count === 0 ? '.' : count)),
      ),
    ),
  ].join('\n');
}

/** A bar with loss and steps per second, on a terminal only; it gives the cursor back also after Ctrl-C. */
export class Progress {
  /** Over all epochs. */
  steps = 0;
  seconds = 0;
  readonly #bar = new SingleBar({
    format: 'epoch {epoch} [{bar}] {value}/{total}  loss {loss}  {rate} steps/s',
    hideCursor: true,
    clearOnComplete: true,
  });
  #epoch = { began: 0, steps: 0, loss: 0 };

  start(epoch: number, steps: number): void {
    this.#epoch = { began: performance.now(), steps: 0, loss: 0 };
    this.#bar.start(steps, 0, { epoch, loss: '-', rate: '-' });
  }

  step(loss: number): void {
    this.#epoch.loss += loss;
    const steps = ++this.#epoch.steps;
    const rate = steps / this.#elapsed();
    this.#bar.update(steps, { loss: loss.toFixed(4), rate: rate.toFixed(0) });
  }

  /** Ends the epoch. Returns its mean loss and duration. */
  stop(): { loss: number; seconds: number } {
    this.#bar.stop();
    const seconds = this.#elapsed();
    this.steps += this.#epoch.steps;
    this.seconds += seconds;
    return { loss: this.#epoch.loss / this.#epoch.steps, seconds };
  }

  #elapsed(): number {
    return (performance.now() - this.#epoch.began) / 1000;
  }
}
