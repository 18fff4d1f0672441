// A chain of modules under checkpoints: in segments, or within a budget of bytes.
import { checkOptions } from '../arguments.ts';
import { current } from '../context.ts';
import { ArgumentError } from '../errors.ts';
import { checkInteger, describe } from '../shape.ts';
import { checkTensor, type Tensor } from '../tensor.ts';
import { adviseOnce, checkpoint, Ledger, Region, sumOf } from './checkpoint.ts';

/** A module or a plain function of one tensor. */
export type Stage = { call(x: Tensor): Tensor } | ((x: Tensor) => Tensor);

/** How a budget was met. Bytes are those saved for the backward pass; parameters are there anyway and do not count. */
export interface CheckpointPlan {
  readonly modules: number;
  /** How many of them, from the first on, are computed again. */
  readonly recomputed: number;
  readonly maxBytes: number;
  /** What all of them save together without checkpoints. */
  readonly plainBytes: number;
  /** The peak that follows from the forward pass. */
  readonly predictedBytes: number;
  /** The peak of the backward pass. */
  readonly measuredBytes: number;
}

export interface SequentialOptions {
  /** Checkpoint this many parts of nearly equal length. */
  segments?: number;
  /** Compute again as few modules as keep saved bytes within this budget. */
  maxBytes?: number;
  /** With maxBytes: receives the plan after the backward pass. Default: prints it, once for each plan. */
  onPlan?: (plan: CheckpointPlan) => void;
}

const run = (stage: Stage, x: Tensor): Tensor => (typeof stage === 'function' ? stage(x) : stage.call(x));

function checkStages(modules: Iterable<Stage>): Stage[] {
  if (typeof modules?.[Symbol.iterator] !== 'function') {
    throw new ArgumentError(
      `checkpointSequential: the modules are ${describe(modules)}. Expected a list or a Sequential.`,
    );
  }
  const stages = [...modules];
  stages.forEach((stage, i) => {
    if (typeof stage !== 'function' && typeof stage?.call !== 'function') {
      throw new ArgumentError(
        `checkpointSequential: entry ${i} is ${describe(stage)}. Expected a module or a function.`,
      );
    }
  });
  if (stages.length === 0) throw new ArgumentError('checkpointSequential: no modules. Expected at least one.');
  return stages;
}

/**
 * The modules one after another on x, under checkpoints. `segments`: so many parts, each computed again as a whole.
 * `maxBytes`: as few modules as possible are computed again, from the first on, so that the bytes saved stay within the
 * budget; what was predicted and measured is printed. torch.utils.checkpoint.checkpoint_sequential
 * @throws ArgumentError unless exactly one of segments and maxBytes is given
 */
export function checkpointSequential(modules: Iterable<Stage>, options: SequentialOptions, x: Tensor): Tensor {
  checkOptions('checkpointSequential', options, { segments: 1, maxBytes: 0, onPlan: null });
  checkTensor('checkpointSequential', x);
  const stages = checkStages(modules);
  const { segments, maxBytes } = options;
  if ((segments === undefined) === (maxBytes === undefined)) {
    throw new ArgumentError('checkpointSequential: give either { segments } or { maxBytes }.');
  }
  if (segments !== undefined)
    return inSegments(stages, checkInteger('checkpointSequential', 'segments', segments, 1), x);
  if (options.onPlan !== undefined && typeof options.onPlan !== 'function') {
    throw new ArgumentError(`checkpointSequential: onPlan is ${describe(options.onPlan)}. Expected a function.`);
  }
  const budget = checkInteger('checkpointSequential', 'maxBytes', maxBytes, 1);
  if (!current().grad) return stages.reduce((y, stage) => run(stage, y), x);
  return new Budget(stages, budget, options.onPlan ?? printOnce).run(x);
}

function inSegments(stages: readonly Stage[], segments: number, x: Tensor): Tensor {
  if (segments > stages.length) {
    throw new ArgumentError(
      `checkpointSequential: ${segments} segments of ${stages.length} modules. Use at most as many.`,
    );
  }
  if (segments === 1) adviseOnce('checkpointSequential');
  const bounds = Array.from({ length: segments + 1 }, (_, i) => Math.round((i * stages.length) / segments));
  return bounds.slice(1).reduce((y, end, i) => {
    const part = stages.slice(bounds[i], end);
    return passedOn(
      x,
      y,
      checkpoint((input: Tensor) => part.reduce((z, stage) => run(stage, z), input), y),
    );
  }, x);
}

/** What one module made for the next is seen by nobody else, and is kept by whoever saved it. */
function passedOn(x: Tensor, input: Tensor, result: Tensor): Tensor {
  if (input !== x && input !== result) input.dispose();
  return result;
}

/** Modules that are computed again together, from the first one's input. */
interface Part {
  readonly inputs: ReadonlyMap<number, number>;
  readonly saved: ReadonlyMap<number, number>;
}
const bytesOf = ({ inputs, saved }: Part): number => sumOf(new Map([...saved, ...inputs]));

/**
 * Everything is kept until the budget is spent. Then modules let go, from the first on, whose turn comes last; and where
 * the budget has room for what neighbours save together, they become one part, which keeps one input.
 */
class Budget {
  readonly #stages: readonly Stage[];
  readonly #maxBytes: number;
  readonly #onPlan: (plan: CheckpointPlan) => void;
  readonly #ledger = new Ledger();
  readonly #regions: Region[] = [];
  readonly #parts: Part[] = [];
  #dropped = 0;
  #largest = 0;

  constructor(stages: readonly Stage[], maxBytes: number, onPlan: (plan: CheckpointPlan) => void) {
    this.#stages = stages;
    this.#maxBytes = maxBytes;
    this.#onPlan = onPlan;
  }

  run(x: Tensor): Tensor {
    const out = this.#stages.reduce((y, stage) => {
      // Room for a module like the largest so far.
      this.#keepWithin(this.#maxBytes - this.#largest);
      const region = new Region((input: Tensor) => run(stage, input), [y], this.#ledger);
      this.#regions.push(region);
      const result = region.first<Tensor>([y], true);
      this.#largest = Math.max(this.#largest, bytesOf(region));
      this.#keepWithin(this.#maxBytes);
      return passedOn(x, y, result);
    }, x);
    this.#report();
    return out;
  }

  #keepWithin(bytes: number): void {
    while (this.#ledger.bytes > bytes && this.#dropped < this.#regions.length) this.#dropNext();
  }

  #dropNext(): void {
    const region = this.#regions[this.#dropped++]!;
    region.drop();
    const last = this.#parts.pop();
    if (last) {
      const joined = { inputs: last.inputs, saved: new Map([...last.saved, ...region.saved]) };
      if (this.#inputsBefore(this.#parts.length) + bytesOf(joined) <= this.#maxBytes) {
        region.follow(this.#regions[this.#dropped - 2]!);
        this.#parts.push(joined);
        return;
      }
      this.#parts.push(last);
    }
    this.#parts.push(region);
  }

  #inputsBefore(part: number): number {
    return this.#parts.slice(0, part).reduce((sum, { inputs }) => sum + sumOf(inputs), 0);
  }

  #report(): void {
    // As each part is computed again, the inputs of those before it are held.
    const again = this.#parts.map((part, i) => this.#inputsBefore(i) + bytesOf(part));
    const predictedBytes = Math.max(this.#ledger.peak, ...again);
    const plainBytes = sumOf(new Map(this.#regions.flatMap(({ inputs, saved }) => [...inputs, ...saved])));
    const report = (): void =>
      this.#onPlan({
        modules: this.#stages.length,
        recomputed: this.#dropped,
        maxBytes: this.#maxBytes,
        plainBytes,
        predictedBytes,
        measuredBytes: this.#ledger.peak,
      });
    const first = this.#regions.find(({ saves }) => saves);
    if (first) first.whenSpent(report);
    else report();
  }
}

const printed = new Set<string>();
const mebibytes = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(2)} MiB`;

function printOnce(plan: CheckpointPlan): void {
  const { modules, recomputed, maxBytes, plainBytes, predictedBytes, measuredBytes } = plan;
  const text =
    `checkpointSequential: ${recomputed} of ${modules} modules are computed again. Saved bytes: ${mebibytes(plainBytes)} ` +
    `without, ${mebibytes(predictedBytes)} predicted, ${mebibytes(measuredBytes)} measured, ${mebibytes(maxBytes)} allowed.` +
    (predictedBytes > maxBytes ? ' No choice of modules keeps within that: split the largest.' : '');
  if (printed.has(text)) return;
  printed.add(text);
  console.log(text);
}
