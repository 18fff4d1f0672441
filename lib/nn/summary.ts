// What a model is made of: its modules in the order of their calls, with shapes, parameters and bytes. Layer nn.
import { checkOptions } from '../arguments.ts';
import { noGrad } from '../autograd/grad-mode.ts';
import type { Observer } from '../autograd/observer.ts';
import { within } from '../context.ts';
import type { DType } from '../dtype.ts';
import { ArgumentError } from '../errors.ts';
import { zeros } from '../ops/create.ts';
import type { Storage } from '../program/storage.ts';
import { checkShape, describe, type Shape, show } from '../shape.ts';
import { scope, type Tensor } from '../tensor.ts';
import { bytesText, type Column, printsAs, table } from '../text.ts';
import type { AnyModule } from './module.ts';
import { CallNames, checkModel, inEvalMode, type Seen, watching } from './watch.ts';

/** One call of a module. */
export interface ModuleSummary {
  /** As in LayerFlow; of the model itself its class. */
  readonly name: string;
  readonly type: string;
  /** How many calls of modules it lies within. */
  readonly depth: number;
  /** Of each tensor that it returned, those in arrays included. */
  readonly outputShapes: readonly Shape[];
  /** Elements of the parameters that it holds itself and that no row above has counted. */
  readonly parameters: number;
  /** Those of them that require grad. */
  readonly trainable: number;
}

/** Prints as a table. */
export interface ModelSummary {
  /** In the order in which the calls began. */
  readonly rows: readonly ModuleSummary[];
  /** Elements of all parameters, each counted once, also of modules that were not called. */
  readonly parameters: number;
  readonly trainable: number;
  /** Of all parameters. */
  readonly parameterBytes: number;
  /** Of what the modules returned in one forward pass, the inputs left out; memory that several share counts once. */
  readonly outputBytes: number;
}

export interface SummaryOptions {
  /** Of the inputs, or of each of them. Default: float32. */
  dtype?: DType | readonly DType[];
}

/**
 * Calls the model once with zeros of `inputShape`, the shape of its input or a list of shapes for several, and reports
 * each call of a module on the way. Runs in eval mode without recording, and puts every module back into its mode.
 * @throws ArgumentError when the forward pass does, naming the module; ShapeError for a shape that is none
 */
export function summary(
  model: AnyModule,
  inputShape: Shape | readonly Shape[],
  options: SummaryOptions = {},
): ModelSummary {
  const op = 'summary';
  checkModel(op, model);
  checkOptions(op, options, { dtype: 'float32' });
  const several = Array.isArray(inputShape) && Array.isArray(inputShape[0]);
  const shapes = ((several ? inputShape : [inputShape]) as readonly unknown[]).map((shape) => checkShape(op, shape));
  const { dtype = 'float32' } = options;
  const dtypes = Array.isArray(dtype) ? (dtype as readonly DType[]) : shapes.map(() => dtype as DType);
  if (dtypes.length !== shapes.length) {
    throw new ArgumentError(`${op}: ${dtypes.length} dtypes for ${shapes.length} inputs. Expected one, or one each.`);
  }
  const run = new Run(model);
  inEvalMode(model, () =>
    scope(() => noGrad(() => run.call(shapes.map((shape, i) => zeros(shape, { dtype: dtypes[i]! }))))),
  );
  const all = [...model.parameters()];
  const result: ModelSummary = {
    rows: run.rows,
    parameters: elements(all),
    trainable: elements(all.filter((p) => p.requiresGrad)),
    parameterBytes: all.reduce((sum, { nbytes }) => sum + nbytes, 0),
    outputBytes: run.outputBytes(),
  };
  return printsAs(result, () => print(result));
}

const elements = (tensors: readonly Tensor[]): number => tensors.reduce((sum, { numel }) => sum + numel, 0);

type Row = { -readonly [K in keyof ModuleSummary]: ModuleSummary[K] };

interface Call {
  readonly row: Row;
  returned: boolean;
}

/** One forward pass: a row for each call, made as it begins. */
class Run implements Observer {
  readonly rows: Row[] = [];
  readonly #model: AnyModule;
  readonly #names: CallNames;
  readonly #uncounted: Set<Tensor>;
  /** Calls under way, the innermost last. */
  readonly #open: Call[] = [];
  readonly #inputs = new Set<Storage>();
  readonly #outputs = new Set<Storage>();
  /** The innermost call that an error is on its way from. */
  #failed: Row | null = null;

  constructor(model: AnyModule) {
    this.#model = model;
    this.#names = new CallNames(model);
    this.#uncounted = new Set(model.parameters());
  }

  call(inputs: readonly Tensor[]): void {
    for (const { storage } of inputs) this.#inputs.add(storage);
    const run = (): unknown => this.#model.call(...inputs);
    try {
      within('summary', { observer: this }, () =>
        watching(
          this.#model,
          () => true,
          (seen) => this.#returned(seen),
          run,
        ),
      );
    } catch (error) {
      const { name, type } = this.#failed ?? this.rows[0]!;
      const shapes = inputs.map(({ shape }) => show(shape)).join(', ');
      const where = name === type ? type : `${name} (${type})`;
      throw new ArgumentError(
        `summary: ${where} threw for inputs of shape ${shapes} to the model: ${error instanceof Error ? error.message : describe(error)}`,
        { cause: error },
      );
    }
  }

  outputBytes(): number {
    return [...this.#outputs].reduce((sum, storage) => sum + (this.#inputs.has(storage) ? 0 : storage.bytes), 0);
  }

  entered(module: AnyModule): void {
    const below = new Set([...module.children()].flatMap((child) => [...child.parameters()]));
    const own = [...module.parameters()].filter((p) => !below.has(p) && this.#uncounted.delete(p));
    const row: Row = {
      name: this.#names.next(module),
      type: module.constructor.name,
      depth: this.#open.length,
      outputShapes: [],
      parameters: elements(own),
      trainable: elements(own.filter((p) => p.requiresGrad)),
    };
    this.rows.push(row);
    // A module that is no part of the model is not watched: it is taken to return.
    this.#open.push({ row, returned: !this.#names.knows(module) });
  }

  #returned({ outputs }: Seen): void {
    const call = this.#open.at(-1)!;
    call.returned = true;
    call.row.outputShapes = outputs.map(({ shape }) => shape);
    for (const { storage } of outputs) this.#outputs.add(storage);
  }

  left(): void {
    const { row, returned } = this.#open.pop()!;
    this.#failed = returned ? null : (this.#failed ?? row);
  }

  // Nothing is recorded here, and nothing differentiated.
  recorded(): void {}
  differentiated(): void {}
}

const count = (n: number): string => (n === 0 ? '-' : n.toLocaleString('en-US'));

/** The name without that of the call around it: what stands above says it. */
function shortNames(rows: readonly ModuleSummary[]): Map<ModuleSummary, string> {
  const around: string[] = [];
  return new Map(
    rows.map((row) => {
      around.length = row.depth;
      const outer = row.depth <= 1 ? '' : `${around[row.depth - 1]!.replace(/#\d+$/, '')}.`;
      around.push(row.name);
      const name = row.name.startsWith(outer) ? row.name.slice(outer.length) : row.name;
      return [row, '  '.repeat(row.depth) + name];
    }),
  );
}

function print({ rows, parameters, trainable, parameterBytes, outputBytes }: ModelSummary): string {
  const names = shortNames(rows);
  const columns: Column<ModuleSummary>[] = [
    { title: 'module', cell: (row) => names.get(row)!, left: true },
    { title: 'type', cell: ({ type }) => type, left: true },
    { title: 'output', cell: ({ outputShapes }) => outputShapes.map(show).join(' ') || '-', left: true },
    { title: 'parameters', cell: (row) => count(row.parameters) },
    { title: 'trainable', cell: (row) => trainableText(row) },
  ];
  const inRows = rows.reduce((sum, row) => sum + row.parameters, 0);
  const elsewhere = parameters === inRows ? '' : `, ${count(parameters - inRows)} of them in modules without a call`;
  const totals = [
    `parameters: ${parameters.toLocaleString('en-US')} (${bytesText(parameterBytes)})${elsewhere}`,
    `trainable: ${trainable.toLocaleString('en-US')}`,
    `outputs of one forward pass: ${bytesText(outputBytes)}`,
  ];
  return `${table(columns, rows)}\n\n${totals.join('\n')}`;
}

function trainableText({ parameters, trainable }: ModuleSummary): string {
  if (parameters === 0) return '-';
  if (trainable === 0) return 'no';
  return trainable === parameters ? 'yes' : count(trainable);
}
