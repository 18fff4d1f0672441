// Optimizer: parameter groups, the state of each parameter, and the loop over both. Layer optim: what one update
// computes is the subclass's, and native; this file does no arithmetic on tensors.
import { checkOptions, checkRange } from '../arguments.ts';
import { noGrad } from '../autograd/grad-mode.ts';
import { ArgumentError } from '../errors.ts';
import { fullLike, zeros } from '../ops/index.ts';
import { type Clip, type Count, sumSquares_ } from '../ops/optimizer.ts';
import { divert } from '../program/engine.ts';
import { capturing, refuseWhileRecording } from '../program/recorder.ts';
import { describe, sameShape, show } from '../shape.ts';
import { keep, Tensor } from '../tensor.ts';

/** `initialLr`: the rate that a scheduler started from; absent before there is one. */
export type ParamGroup<Options> = Options & { params: Tensor[]; initialLr?: number };
/** What a constructor takes: parameters, or groups of them with options of their own. */
export type Params<Options> = Iterable<Tensor> | Iterable<Partial<Options> & { params: Iterable<Tensor> }>;

/** What a constructor takes beside the parameters: what their groups have in common, and `maxGradNorm`. */
export type Given<Options> = Partial<Options> & { maxGradNorm?: number };

interface ParamState {
  /** Updates so far. */
  step: number;
  /** The tensors an update reads and writes beside the parameter, all of its shape and dtype. */
  tensors: Record<string, Tensor>;
}

/** Parameters appear by their position over all groups. The tensors are the optimizer's own: save or clone, don't change. */
export interface OptimizerState<Options> {
  state: Map<number, ParamState>;
  paramGroups: (Options & { params: number[]; initialLr?: number })[];
}

export interface UpdateItem {
  param: Tensor;
  grad: Tensor;
  state: Tensor[];
}

/** A tensor of the optimizer's own: made at once, also while a function is being compiled, and outliving every scope. */
const made = (make: () => Tensor): Tensor => keep(divert(null, make));

export abstract class Optimizer<Options extends object> {
  readonly paramGroups: ParamGroup<Options>[] = [];
  /**
   * Warns, once, when `step()` sees a gradient that several backward passes added up: a forgotten `zeroGrad()`. Those
   * of one `nn.utils.accumulateGradients` count as one; whoever adds up by hand leaves it off.
   */
  warnOnAccumulation = false;
  #maxGradNorm = Infinity;
  /** One float64: the sum of the squares of the gradients of the last step that clipped. */
  #squares: Tensor | null = null;
  readonly #defaults: Options;
  readonly #state = new Map<Tensor, ParamState>();
  #warned = false;
  /** How often the state was replaced. */
  #loads = 0;

  constructor(params: Params<Options>, options: Given<Options>, defaults: Options) {
    refuseWhileRecording(this.constructor.name, 'Its state would start anew while recording only. Make it outside.');
    checkOptions(this.constructor.name, options, { ...defaults, maxGradNorm: Infinity });
    const { maxGradNorm = Infinity, ...groupOptions } = options;
    this.maxGradNorm = maxGradNorm;
    this.#defaults = { ...defaults, ...groupOptions };
    const entries = [...params];
    if (entries.length === 0) throw new ArgumentError(`${this.constructor.name}: got no parameters.`);
    const groups = entries.every((entry) => entry instanceof Tensor) ? [{ params: entries }] : entries;
    for (const group of groups) this.addParamGroup(group as Partial<Options> & { params: Iterable<Tensor> });
  }

  /**
   * `step()` scales all gradients together so that their common 2-norm, over all groups, is at most this. The result is
   * that of `nn.utils.clipGradNorm_` before the step, bit for bit, but `grad` stays as it is: the scaling takes no pass
   * over memory of its own. Infinity, unless told: no clipping.
   */
  get maxGradNorm(): number {
    return this.#maxGradNorm;
  }

  set maxGradNorm(value: number) {
    this.#maxGradNorm = checkRange(this.constructor.name, 'maxGradNorm', value, 0, Infinity);
  }

  /** The norm of all gradients in the last step that clipped, before clipping; NaN when there was none. */
  get gradNorm(): number {
    return Math.sqrt(Number(this.#squares?.item() ?? NaN));
  }

  /** Throws ArgumentError for an option outside its range. */
  protected abstract checkGroup(options: Options): void;

  /** Names of the state tensors that an update with these options needs. */
  protected abstract stateNames(options: Options): readonly string[];

  /** What every element of the state tensors starts as. */
  protected initialState(_options: Options): number {
    return 0;
  }

  /** Update number `count.step` of parameters of one dtype, in one native command. */
  protected abstract update(items: UpdateItem[], options: Options, count: Count, clip: Clip | null): void;

  addParamGroup({ params, ...options }: Partial<Options> & { params: Iterable<Tensor> }): void {
    const name = this.constructor.name;
    checkOptions(name, options, this.#defaults);
    const group = { ...this.#defaults, ...options, params: [...params] } as ParamGroup<Options>;
    this.checkGroup(group);
    if (group.params.length === 0) throw new ArgumentError(`${name}: got a group without parameters.`);
    const known = new Set(this.#allParams());
    for (const param of group.params) {
      if (!(param instanceof Tensor)) throw new ArgumentError(`${name}: got ${describe(param)}. Expected tensors.`);
      if (!param.isLeaf) {
        throw new ArgumentError(
          `${name}: a tensor of shape ${show(param.shape)} is the result of an op. Expected leaves.`,
        );
      }
      if (known.has(param))
        throw new ArgumentError(`${name}: a parameter of shape ${show(param.shape)} appears twice.`);
      known.add(param);
    }
    this.paramGroups.push(group);
  }

  /** Updates every parameter that has a gradient. */
  step(): void {
    if (this.warnOnAccumulation && !this.#warned) this.#checkAccumulation();
    capturing()?.guard(this, () => this.#guard());
    noGrad(() => {
      const clip = this.#maxGradNorm < Infinity ? this.#clip() : null;
      for (const group of this.paramGroups) this.#stepGroup(group, clip);
    });
  }

  /** Removes all gradients. */
  zeroGrad(): void {
    for (const { params } of this.paramGroups) for (const param of params) param.grad = null;
  }

  stateDict(): OptimizerState<Options> {
    const params = [...this.#allParams()];
    const state = params.flatMap((param, i): [number, ParamState][] => {
      const entry = this.#state.get(param);
      return entry === undefined ? [] : [[i, { ...entry, tensors: { ...entry.tensors } }]];
    });
    let next = 0;
    const paramGroups = this.paramGroups.map((group) => ({ ...group, params: group.params.map(() => next++) }));
    return { state: new Map(state), paramGroups };
  }

  /** Takes over options and copies of the state tensors; all is checked against the parameters first. */
  loadStateDict({ state, paramGroups }: OptimizerState<Options>): void {
    const name = `${this.constructor.name}: loadStateDict`;
    const sizes = (groups: readonly { params: unknown[] }[]) => groups.map(({ params }) => params.length).join(',');
    if (sizes(paramGroups) !== sizes(this.paramGroups)) {
      const [got, expected] = [sizes(paramGroups), sizes(this.paramGroups)];
      throw new ArgumentError(`${name}: groups of ${got} parameters. Expected ${expected}.`);
    }
    for (const group of paramGroups) this.checkGroup(group);
    const params = [...this.#allParams()];
    for (const [i, { tensors }] of state) {
      for (const [key, tensor] of Object.entries(tensors)) {
        const param = params[i];
        if (param && tensor.dtype === param.dtype && sameShape(tensor.shape, param.shape)) continue;
        const expected = param ? `${param.dtype}${show(param.shape)}` : `fewer than ${params.length} parameters`;
        throw new ArgumentError(
          `${name}: ${key} of parameter ${i} is ${tensor.dtype}${show(tensor.shape)}. Expected ${expected}.`,
        );
      }
    }

    for (const [i, { params: _, ...options }] of paramGroups.entries()) Object.assign(this.paramGroups[i]!, options);
    this.#state.clear();
    this.#loads++;
    for (const [i, { step, tensors }] of state) {
      const copies = Object.entries(tensors).map(([key, tensor]) => [key, keep(tensor.detach().clone())]);
      this.#state.set(params[i]!, { step, tensors: Object.fromEntries(copies) });
    }
  }

  /** The norm stays in native memory: the updates make their factor of it. */
  #clip(): Clip {
    this.#squares ??= made(() => zeros([1], { dtype: 'float64' }));
    sumSquares_(
      this.#squares,
      [...this.#allParams()].flatMap(({ gradTensor }) => gradTensor ?? []),
    );
    return { maxNorm: () => this.#maxGradNorm, squares: this.#squares };
  }

  /** For compiled programs: what of an update cannot differ from run to run. */
  #guard(): { broken(): string | null } {
    const loads = this.#loads;
    const clips = this.#maxGradNorm < Infinity;
    const groups = this.paramGroups.map((group) => ({ count: group.params.length, names: this.stateNames(group) }));
    // In each run: a loop, and no arrays.
    const same = (): boolean => {
      if (loads !== this.#loads || clips !== this.#maxGradNorm < Infinity) return false;
      if (this.paramGroups.length !== groups.length) return false;
      for (let i = 0; i < groups.length; i++) {
        const { count, names } = groups[i]!;
        const now = this.stateNames(this.paramGroups[i]!);
        if (count !== this.paramGroups[i]!.params.length || names.length !== now.length) return false;
        for (let k = 0; k < names.length; k++) if (names[k] !== now[k]) return false;
      }
      return true;
    };
    return { broken: () => (same() ? null : `state, options or groups of ${this.constructor.name} are others`) };
  }

  *#allParams(): Generator<Tensor> {
    for (const group of this.paramGroups) yield* group.params;
  }

  #checkAccumulation(): void {
    for (const { shape, gradPasses } of this.#allParams()) {
      if (gradPasses < 2) continue;
      this.#warned = true;
      process.emitWarning(
        `${this.constructor.name}: step: the gradient of a parameter of shape ${show(shape)} is the sum of ` +
          `${gradPasses} backward passes. Call zeroGrad() after each step; to add up micro-batches on purpose, use ` +
          'nn.utils.accumulateGradients.',
        { code: 'CHAINRULE_GRAD_ACCUMULATION' },
      );
      return;
    }
  }

  #stepGroup(group: ParamGroup<Options>, clip: Clip | null): void {
    const names = this.stateNames(group);
    // A parameter that had no gradient for a while is behind the others in steps.
    const batches: { code: number; step: number; items: UpdateItem[]; states: ParamState[] }[] = [];
    for (const param of group.params) {
      capturing()?.gradientOf(param, 'read');
      const { gradTensor: grad, code } = param;
      if (grad === null) continue;
      const state = this.#stateOf(param, names, group);
      let batch = batches.find(({ code, step }) => code === param.code && step === state.step);
      if (batch === undefined) batches.push((batch = { code, step: state.step, items: [], states: [] }));
      batch.items.push({ param, grad, state: names.map((name) => state.tensors[name]!) });
      batch.states.push(state);
    }
    for (const { items, states } of batches) {
      const count = (by: number): void => {
        for (const state of states) state.step += by;
      };
      count(1);
      const back = (): void => count(-1);
      capturing()?.repeat(() => count(1), back);
      capturing()?.onFailure(back);
      try {
        this.update(items, group, states[0]!, clip);
      } catch (error) {
        if (capturing() === null) count(-1);
        throw error;
      }
    }
  }

  /** The state of a parameter; it starts anew when an option changed so that tensors are missing. */
  #stateOf(param: Tensor, names: readonly string[], options: Options): ParamState {
    let state = this.#state.get(param);
    if (state === undefined || !names.every((name) => Object.hasOwn(state!.tensors, name))) {
      const start = this.initialState(options);
      const tensors = names.map((name): [string, Tensor] => [name, made(() => fullLike(param, start))]);
      state = { step: 0, tensors: Object.fromEntries(tensors) };
      this.#state.set(param, state);
    }
    return state;
  }
}
