// Gradients against central differences: element by element, with an account of what the comparison could not show.
import { checkOptions, checkRange } from '../arguments.ts';
import { ArgumentError, AutogradError } from '../errors.ts';
import { clone } from '../ops/cast.ts';
import { tensor } from '../ops/create.ts';
import { copy_ } from '../ops/in-place.ts';
import { randn } from '../ops/random.ts';
import { toTypedArray } from '../ops/read.ts';
import { Generator } from '../random.ts';
import { type Shape, sameShape, show, stridesOf } from '../shape.ts';
import { checkTensor, scope, type Tensor } from '../tensor.ts';
import { grad } from './backward.ts';
import { enableGrad, noGrad } from './grad-mode.ts';
import { checkFloat64, checkFunction } from './numerical-derivative.ts';

/** What is checked: a function of tensors that returns a tensor, or several. */
export type Checkable = (...inputs: Tensor[]) => Tensor | readonly Tensor[];

export interface GradcheckOptions {
  /** Each element moves by this much, up and down. */
  eps?: number;
  /** Allowed: |analytic - numeric| <= atol + rtol * |numeric|. */
  atol?: number;
  rtol?: number;
}
export interface GradgradcheckOptions extends GradcheckOptions {
  /** What the gradient starts from, one for each output that requires grad. Default: normal random numbers. */
  gradOutputs?: Tensor | readonly Tensor[];
}
export interface Gradchecked {
  /** Elements of inputs that require grad. */
  checked: number;
  /**
   * How many of these show nothing: analytic and numeric are both within atol of 0 for every output, so that a gradient
   * that is missing there would pass as well.
   */
  vacuous: number;
}

type Settings = Required<GradcheckOptions>;
const DEFAULTS: Settings = { eps: 1e-6, atol: 1e-5, rtol: 1e-3 };

// ---- all derivatives ----------------------------------------------------------------------------------------------------
/**
 * Compares every derivative of fn that `backward` would give with a central difference. The inputs that require grad are
 * moved in place, one element at a time, and afterwards are what they were, bit for bit: fn may also read them from
 * elsewhere, as a model reads its parameters. Warns (CHAINRULE_VACUOUS_GRADCHECK) when no element shows anything.
 * torch.autograd.gradcheck
 * @throws AutogradError naming the worst element, or when nothing requires grad, or when fn or its gradient is not the
 *   same twice; DTypeError for anything but float64
 */
export function gradcheck(
  fn: Checkable,
  inputs: Tensor | readonly Tensor[],
  options: GradcheckOptions = {},
): Gradchecked {
  return scope(() => check('gradcheck', fn, listOf(inputs), options));
}

/**
 * The same for the gradient of fn, as a function of the inputs and of what the gradient starts from: second derivatives.
 * torch.autograd.gradgradcheck
 */
export function gradgradcheck(
  fn: Checkable,
  inputs: Tensor | readonly Tensor[],
  options: GradgradcheckOptions = {},
): Gradchecked {
  const op = 'gradgradcheck';
  checkOptions(op, options, { ...DEFAULTS, gradOutputs: null });
  checkFunction(op, fn);
  const { gradOutputs, ...settings } = options;
  const all = listOf(inputs);
  const wanted = variables(op, all);
  const gradient: Checkable = (...args) => {
    const outputs = differentiable(op, fn(...args.slice(0, all.length)));
    const starts = { gradOutputs: args.slice(all.length), createGraph: true, allowUnused: true } as const;
    return grad(outputs, wanted, starts).filter((g) => g !== null);
  };
  return scope(() => {
    const shapes = enableGrad(() => scope(() => differentiable(op, fn(...all)).map(({ shape }) => shape)));
    const given = gradOutputs === undefined ? draw(shapes) : listOf(gradOutputs);
    if (given.length !== shapes.length) {
      throw new ArgumentError(`${op}: ${given.length} gradOutputs for ${shapes.length} outputs that require grad.`);
    }
    // Copies: they shall require grad, which is not to be seen on what the user gave.
    const starts = given.map((g) => {
      checkTensor(op, g, 'entry of gradOutputs');
      return asLeaf(noGrad(() => clone(g)));
    });
    return check(op, gradient, [...all, ...starts], settings);
  });
}

/** The same numbers in every run. */
function draw(shapes: readonly Shape[]): Tensor[] {
  const generator = new Generator(0x5eed);
  return shapes.map((shape) => randn(shape, { dtype: 'float64', generator }));
}

function asLeaf(t: Tensor): Tensor {
  t.leafRequiresGrad = true;
  return t;
}

const listOf = (value: Tensor | readonly Tensor[]): readonly Tensor[] =>
  Array.isArray(value) ? value : [value as Tensor];

// ---- the comparison -----------------------------------------------------------------------------------------------------
function check(op: string, fn: Checkable, inputs: readonly Tensor[], options: GradcheckOptions): Gradchecked {
  checkFunction(op, fn);
  checkOptions(op, options, DEFAULTS);
  const settings = settingsOf(op, options);
  const wanted = variables(op, inputs);
  return enableGrad(() => {
    const run = (): Tensor[] => differentiable(op, fn(...inputs));
    const { shapes, rows } = analytic(op, run, wanted);
    const tally = new Tally(op, settings, inputs, shapes);
    wanted.forEach((x, k) => {
      eachDifference(op, x, settings.eps, run, shapes, (j, numeric) => {
        const column = rows.map((row) => row[k]![j]!);
        tally.column(x, j, column, numeric);
      });
    });
    return tally.result();
  });
}

function settingsOf(op: string, options: GradcheckOptions): Settings {
  const { eps = DEFAULTS.eps, atol = DEFAULTS.atol, rtol = DEFAULTS.rtol } = options;
  if (!(checkRange(op, 'eps', eps) > 0)) throw new ArgumentError(`${op}: eps is 0. Expected a number above 0.`);
  return { eps, atol: checkRange(op, 'atol', atol), rtol: checkRange(op, 'rtol', rtol) };
}

/** A row of the Jacobian for each element of the outputs, in parts: one per variable. */
type Row = Float64Array[];

/** The Jacobian by vjps, after a proof that fn and its backward pass are functions. */
function analytic(op: string, run: () => Tensor[], wanted: readonly Tensor[]): { shapes: Shape[]; rows: Row[] } {
  const outputs = run();
  const shapes = outputs.map(({ shape }) => shape);
  const again = scope(() => valuesOf(op, run(), shapes));
  const changed = valuesOf(op, outputs, shapes).findIndex((value, i) => !Object.is(value, again[i]));
  if (changed >= 0) {
    throw new AutogradError(
      `${op}: a second call gave another result at ${place(shapes, changed)}. Only a function of its inputs alone can be ` +
        'checked: seed what is random inside it, and put modules into eval().',
    );
  }
  const pull = (): Row[] => outputs.flatMap((y) => Array.from({ length: y.numel }, (_, i) => pullRow(y, i, wanted)));
  const [rows, twice] = [pull(), pull()];
  rows.forEach((row, i) => {
    if (row.every((part, k) => part.every((value, j) => Object.is(value, twice[i]![k]![j])))) return;
    throw new AutogradError(`${op}: a second backward pass gave another gradient of ${place(shapes, i)}.`);
  });
  return { shapes, rows };
}

function pullRow(y: Tensor, i: number, wanted: readonly Tensor[]): Row {
  return scope(() => {
    const unit = new Float64Array(y.numel);
    unit[i] = 1;
    const gradOutputs = tensor(unit, { shape: y.shape });
    const pulled = grad(y, wanted, { gradOutputs, retainGraph: true, allowUnused: true });
    return pulled.map((g, k) => (g === null ? new Float64Array(wanted[k]!.numel) : (toTypedArray(g) as Float64Array)));
  });
}

/** Calls `use` with the differences of all outputs over each element of x, which is put back bit for bit. */
function eachDifference(
  op: string,
  x: Tensor,
  eps: number,
  run: () => Tensor[],
  shapes: readonly Shape[],
  use: (j: number, differences: Float64Array) => void,
): void {
  const before = noGrad(() => clone(x));
  const { version } = x.storage;
  const values = toTypedArray(x) as Float64Array;
  const valueAt = (j: number, value: number): Float64Array =>
    scope(() => {
      values[j] = value;
      noGrad(() => copy_(x, tensor(values, { shape: x.shape })));
      return valuesOf(op, run(), shapes);
    });
  try {
    for (let j = 0; j < x.numel; j++) {
      const own = values[j]!;
      const [low, high] = [own - eps, own + eps];
      if (low === high) throw new ArgumentError(`${op}: eps = ${eps} vanishes beside an element of ${own}.`);
      const ahead = valueAt(j, high);
      const behind = valueAt(j, low);
      values[j] = own;
      use(
        j,
        ahead.map((value, i) => (value - behind[i]!) / (high - low)),
      );
    }
  } finally {
    noGrad(() => copy_(x, before));
    // The same bits again: graphs from before that saved x are as good as they were.
    x.storage.version = version;
  }
}

/** All elements of all outputs. */
function valuesOf(op: string, outputs: readonly Tensor[], shapes: readonly Shape[]): Float64Array {
  if (outputs.length !== shapes.length || outputs.some((y, k) => !sameShape(y.shape, shapes[k]!))) {
    const now = outputs.map((y) => show(y.shape)).join(', ');
    throw new AutogradError(
      `${op}: outputs of shape ${shapes.map(show).join(', ')} became ${now} in a later call. ` +
        'Only a function whose outputs keep their shapes can be checked.',
    );
  }
  return Float64Array.from(outputs.flatMap((y) => Array.from(toTypedArray(y))));
}

/** Counts what was compared, and remembers the worst. */
class Tally {
  checked = 0;
  vacuous = 0;
  #wrong = 0;
  #worst = { excess: 1, text: '' };
  readonly #op: string;
  readonly #settings: Settings;
  readonly #inputs: readonly Tensor[];
  readonly #shapes: readonly Shape[];

  constructor(op: string, settings: Settings, inputs: readonly Tensor[], shapes: readonly Shape[]) {
    this.#op = op;
    this.#settings = settings;
    this.#inputs = inputs;
    this.#shapes = shapes;
  }

  /** The derivatives of all outputs with respect to element j of x. */
  column(x: Tensor, j: number, analytic: readonly number[], numeric: ArrayLike<number>): void {
    const { atol, rtol } = this.#settings;
    let shown = false;
    this.checked++;
    for (const [i, a] of analytic.entries()) {
      const n = numeric[i]!;
      if (!(Math.abs(a) <= atol && Math.abs(n) <= atol)) shown = true;
      const allowed = atol + rtol * Math.abs(n);
      const difference = Math.abs(a - n);
      if (difference <= allowed) continue;
      this.#wrong++;
      const excess = Number.isNaN(difference) ? Number.POSITIVE_INFINITY : difference / allowed;
      if (excess < this.#worst.excess) continue;
      const where = `input ${this.#inputs.indexOf(x)} at ${show(positionOf(x.shape, j))}`;
      const text =
        `the derivative of ${place(this.#shapes, i)} with respect to ${where} is ${a} by backward and ${n} by ` +
        `central differences: they differ by ${difference}, allowed is ${allowed}.`;
      this.#worst = { excess, text };
    }
    if (!shown) this.vacuous++;
  }

  result(): Gradchecked {
    const { checked, vacuous } = this;
    if (this.#wrong > 0) {
      throw new AutogradError(
        `${this.#op}: ${this.#worst.text} Wrong are ${this.#wrong} derivatives, this one the most.`,
      );
    }
    if (vacuous === checked) warnVacuous(this.#op, checked, this.#settings.atol);
    return { checked, vacuous };
  }
}

function warnVacuous(op: string, checked: number, atol: number): void {
  process.emitWarning(
    `${op}: all ${checked} elements were vacuous: every gradient, and every difference, is within ${atol} of 0. The ` +
      'check passed and shows nothing, for a gradient that is missing altogether would pass it, too. Choose inputs ' +
      'that matter (units that are not off, a loss that is not scaled to nothing), or a smaller atol.',
    { code: 'CHAINRULE_VACUOUS_GRADCHECK' },
  );
}

/** `output 1 at [0,2]` for an element's number among those of all outputs. */
function place(shapes: readonly Shape[], element: number): string {
  let rest = element;
  for (const [k, shape] of shapes.entries()) {
    const count = shape.reduce((n, size) => n * size, 1);
    if (rest < count) return `output ${k} at ${show(positionOf(shape, rest))}`;
    rest -= count;
  }
  return `output ${shapes.length}`;
}

const positionOf = (shape: Shape, element: number): number[] =>
  stridesOf(shape).map((step, d) => Math.floor(element / step) % shape[d]!);

// ---- arguments ----------------------------------------------------------------------------------------------------------
/** The inputs that require grad. */
function variables(op: string, inputs: readonly Tensor[]): Tensor[] {
  inputs.forEach((x, i) => void checkTensor(op, x, `input ${i}`));
  const wanted = inputs.filter((x) => x.requiresGrad);
  if (wanted.length === 0) {
    throw new AutogradError(
      `${op}: no input requires grad, so there is nothing to check. Call requiresGrad_() on one.`,
    );
  }
  for (const x of wanted) {
    checkFloat64(op, `input ${inputs.indexOf(x)} of shape ${show(x.shape)}`, x);
    if (x.shape.some((size, d) => size > 1 && x.strides[d] === 0)) {
      throw new ArgumentError(
        `${op}: input ${inputs.indexOf(x)} of shape ${show(x.shape)} is expanded: its elements share memory and cannot ` +
          'be moved one at a time. Pass a clone().',
      );
    }
  }
  return wanted;
}

/** The outputs that require grad. */
function differentiable(op: string, result: unknown): Tensor[] {
  const outputs: unknown[] = Array.isArray(result) ? result : [result];
  outputs.forEach((y, k) => void checkTensor(op, y, `output ${k} of the function`));
  const wanted = (outputs as Tensor[]).filter((y) => y.requiresGrad);
  if (wanted.length === 0) {
    throw new AutogradError(
      `${op}: no output requires grad: the function does not depend on its inputs in a way that is recorded. Look for a ` +
        'detach(), a noGrad, or values that passed through JavaScript numbers.',
    );
  }
  for (const y of wanted) checkFloat64(op, `an output of shape ${show(y.shape)}`, y);
  return wanted;
}
