// Schedulers beyond test/golden: rates of several groups computed by PyTorch 1.13, changes from outside, state, errors.
import { describe, expect, it } from 'vitest';
import { optim, type Tensor, tensor } from '../lib/index.ts';
import { expectClose, leaf } from './support.ts';

const { StepLR, MultiStepLR, ExponentialLR, CosineAnnealingLR, LinearLR, OneCycleLR, ReduceLROnPlateau } =
  optim.lrScheduler;

const groups = (lrs: readonly number[]) => lrs.map((lr) => ({ params: [leaf([0])], lr }));
const sgd = (...lrs: number[]): optim.SGD => new optim.SGD(groups(lrs));
const rates = (optimizer: optim.Optimizer<{ lr: number }>): number[] => optimizer.paramGroups.map(({ lr }) => lr);

/** The rates when the scheduler was made and after each of n steps. */
function course(optimizer: optim.Optimizer<{ lr: number }>, scheduler: { step(): void }, n: number): number[][] {
  const seen = [rates(optimizer)];
  for (let i = 0; i < n; i++) {
    scheduler.step();
    seen.push(rates(optimizer));
  }
  return seen;
}

const close = (actual: number[][], expected: number[][]): void =>
  expectClose(actual.flat(), expected.flat(), 1e-12, 'rate');

describe('rates of each group', () => {
  it('go down and up along a cosine', () => {
    const optimizer = sgd(0.4, 0.2);
    close(course(optimizer, new CosineAnnealingLR(optimizer, { tMax: 3, etaMin: 0.1 }), 8), [
      [0.4, 0.2],
      [0.325, 0.175],
      [0.175, 0.125],
      [0.1, 0.1],
      [0.175, 0.125],
      [0.325, 0.175],
      [0.4, 0.2],
      [0.325, 0.175],
      [0.175, 0.125],
    ]);
  });

  it('fall at milestones in any order, twice at one named twice', () => {
    const optimizer = sgd(8, 16);
    const scheduler = new MultiStepLR(optimizer, { milestones: [3, 1, 3], gamma: 0.5 });
    expect(course(optimizer, scheduler, 4)).toEqual([
      [8, 16],
      [4, 8],
      [4, 8],
      [1, 2],
      [1, 2],
    ]);
  });

  it('have the defaults of PyTorch', () => {
    const [step, milestone, linear] = [sgd(1), sgd(1), sgd(1)];
    close(course(step, new StepLR(step, { stepSize: 2 }), 2), [[1], [1], [0.1]]);
    close(course(milestone, new MultiStepLR(milestone, { milestones: [1] }), 1), [[1], [0.1]]);
    const warmUp = [1 / 3, 7 / 15, 0.6, 11 / 15, 13 / 15, 1, 1].map((lr) => [lr]);
    close(course(linear, new LinearLR(linear), 6), warmUp);
  });

  it('keep what was changed from outside, and what another scheduler did', () => {
    const optimizer = sgd(1);
    const [steps, decay] = [
      new StepLR(optimizer, { stepSize: 2, gamma: 0.5 }),
      new ExponentialLR(optimizer, { gamma: 0.9 }),
    ];
    steps.step();
    optimizer.paramGroups[0]!.lr = 10;
    decay.step();
    steps.step();
    expect(rates(optimizer)[0]).toBeCloseTo(4.5, 12);
    expect(optimizer.paramGroups[0]!.initialLr).toBe(1);
    expect([steps.getLastLr(), decay.getLastLr()]).toEqual([rates(optimizer), [9]]);
  });

  it('start from the initial rate that an earlier scheduler noted', () => {
    const optimizer = sgd(0.8);
    course(optimizer, new ExponentialLR(optimizer, { gamma: 0.5 }), 1);
    const cosine = new CosineAnnealingLR(optimizer, { tMax: 1 });
    // Up again from the bottom by the whole height of the initial rate.
    close(course(optimizer, cosine, 2), [[0.4], [0], [0.8]]);
  });

  it('include those of a group that was added later', () => {
    const optimizer = sgd(1);
    const scheduler = new CosineAnnealingLR(optimizer, { tMax: 2 });
    optimizer.addParamGroup({ params: [leaf([0])], lr: 4 });
    scheduler.step();
    close([scheduler.getLastLr()], [[0.5, 2]]);
  });
});

describe('OneCycleLR', () => {
  it('rises, falls and dies away in three phases, momentum the other way round', () => {
    const optimizer = sgd(0.1, 0.2);
    const scheduler = new OneCycleLR(optimizer, {
      maxLr: [0.5, 1],
      totalSteps: 7,
      pctStart: 0.4,
      annealStrategy: 'linear',
      divFactor: 10,
      finalDivFactor: 100,
      threePhase: true,
      baseMomentum: 0.8,
      maxMomentum: [0.9, 0.95],
    });
    const seen: number[][] = [];
    for (let i = 0; i < 7; i++) {
      if (i > 0) scheduler.step();
      seen.push(optimizer.paramGroups.flatMap(({ lr, momentum }) => [lr, momentum]));
    }
    close(seen, [
      [0.05, 0.9, 0.1, 0.95],
      [0.3, 0.8444444444444444, 0.6, 0.8666666666666667],
      [0.45, 0.8111111111111111, 0.9, 0.8166666666666667],
      [0.2, 0.8666666666666667, 0.4, 0.9],
      [0.04175, 0.9, 0.0835, 0.95],
      [0.021125, 0.9, 0.04225, 0.95],
      [0.0005, 0.9, 0.001, 0.95],
    ]);
    // A training loop steps once more, after its last batch.
    scheduler.step();
    close([rates(optimizer)], [[0.0005, 0.001]]);
    expect(() => scheduler.step()).toThrow('OneCycleLR: step 8 of 7');
    close(
      [rates(optimizer), scheduler.getLastLr()],
      [
        [0.0005, 0.001],
        [0.0005, 0.001],
      ],
    );
  });

  it('cycles the first of betas, and leaves the second', () => {
    const optimizer = new optim.Adam([leaf([0])], { lr: 0.1, betas: [0.5, 0.99] });
    const scheduler = new OneCycleLR(optimizer, { maxLr: 0.01, totalSteps: 5 });
    const seen: number[][] = [];
    for (let i = 0; i < 5; i++) {
      if (i > 0) scheduler.step();
      seen.push(optimizer.paramGroups.flatMap(({ lr, betas }) => [lr, ...betas]));
    }
    close(seen, [
      [0.0004, 0.95, 0.99],
      [0.009504846320134737, 0.854951556604879, 0.99],
      [0.0061126202193628925, 0.8888739533021842, 0.99],
      [0.00188258346050237, 0.9311744900929366, 0.99],
      [4e-8, 0.95, 0.99],
    ]);
  });

  it('leaves momentum alone when told to', () => {
    const optimizer = sgd(0.1);
    course(optimizer, new OneCycleLR(optimizer, { maxLr: 1, totalSteps: 4, cycleMomentum: false }), 3);
    expect(optimizer.paramGroups[0]!.momentum).toBe(0);
  });

  it('is at its top after a rise that takes no time', () => {
    const optimizer = sgd(0.1);
    close(course(optimizer, new OneCycleLR(optimizer, { maxLr: 1, totalSteps: 10, pctStart: 0.1 }), 0), [[1]]);
  });
});

describe('ReduceLROnPlateau', () => {
  const follow = (
    optimizer: optim.SGD,
    scheduler: InstanceType<typeof ReduceLROnPlateau>,
    metrics: (number | Tensor)[],
  ): number[][] =>
    metrics.map((metric) => {
      scheduler.step(metric);
      expect(scheduler.getLastLr()).toEqual(rates(optimizer));
      return rates(optimizer);
    });

  it('waits for patience and cooldown, and stops at the least rate of each group', () => {
    const optimizer = sgd(0.1, 0.03);
    const options = { factor: 0.5, patience: 1, cooldown: 1, threshold: 0.1, minLr: [0.02, 0.01] };
    const scheduler = new ReduceLROnPlateau(optimizer, options);
    expect(scheduler.getLastLr()).toEqual([0.1, 0.03]);
    const metrics = [5, 4, 3.9, tensor(3.8), 3.7, Number.NaN, 3.5, 3.4, 1, 2, 2, 2];
    const [first, second, third] = [
      [0.1, 0.03],
      [0.05, 0.015],
      [0.025, 0.01],
    ] as [number[], number[], number[]];
    const expected = [first, first, first, second, second, second, second, second, second, second, third, third];
    close(follow(optimizer, scheduler, metrics), expected);
  });

  it('wants a maximum to grow by an absolute threshold, and makes no change within eps', () => {
    const optimizer = sgd(0.1);
    const options = { mode: 'max', patience: 0, threshold: 0.5, thresholdMode: 'abs', eps: 0.002 } as const;
    const scheduler = new ReduceLROnPlateau(optimizer, options);
    const expected = [0.1, 0.01, 0.01, 0.001, 0.001, 0.001].map((lr) => [lr]);
    close(follow(optimizer, scheduler, [-3, -2.6, -2.4, -2.4, 0, 0]), expected);
  });

  it('goes on from its state, which is plain data', () => {
    const metrics = [3, 3, 3, 2, 2, 2, 2, 2, 2];
    const options = { patience: 1, factor: 0.5, cooldown: 1 };
    const [straight, resumed] = [sgd(1), sgd(1)];
    const first = new ReduceLROnPlateau(straight, options);
    for (let i = 0; i <= metrics.length; i++) {
      const state = JSON.parse(JSON.stringify(first.stateDict()));
      resumed.loadStateDict(straight.stateDict());
      const second = new ReduceLROnPlateau(resumed);
      second.loadStateDict(state);
      expect(second.stateDict()).toEqual(first.stateDict());
      if (i === metrics.length) break;
      first.step(metrics[i]!);
      second.step(metrics[i]!);
      expect(rates(resumed)).toEqual(rates(straight));
    }
    expect(rates(straight)).toEqual([0.125]);
  });
});

describe('state', () => {
  type Make = (optimizer: optim.SGD) => optim.lrScheduler.LRScheduler<object>;
  it.each<[string, Make, Make]>([
    ['StepLR', (o) => new StepLR(o, { stepSize: 2, gamma: 0.3 }), (o) => new StepLR(o, { stepSize: 9 })],
    ['MultiStepLR', (o) => new MultiStepLR(o, { milestones: [1, 5] }), (o) => new MultiStepLR(o, { milestones: [] })],
    ['ExponentialLR', (o) => new ExponentialLR(o, { gamma: 0.7 }), (o) => new ExponentialLR(o, { gamma: 1 })],
    ['CosineAnnealingLR', (o) => new CosineAnnealingLR(o, { tMax: 4 }), (o) => new CosineAnnealingLR(o, { tMax: 9 })],
    ['LinearLR', (o) => new LinearLR(o, { totalIters: 6 }), (o) => new LinearLR(o)],
    [
      'OneCycleLR',
      (o) => new OneCycleLR(o, { maxLr: [1, 2], totalSteps: 12 }),
      (o) => new OneCycleLR(o, { maxLr: 3, totalSteps: 4 }),
    ],
  ])('of %s goes on after every number of steps', (_, make, makeOther) => {
    const straight = sgd(0.1, 0.5);
    const scheduler = make(straight);
    for (let i = 0; i < 10; i++) {
      const resumed = sgd(7, 7);
      const other = makeOther(resumed);
      resumed.loadStateDict(straight.stateDict());
      other.loadStateDict(JSON.parse(JSON.stringify(scheduler.stateDict())));
      expect(other.getLastLr()).toEqual(scheduler.getLastLr());
      scheduler.step();
      other.step();
      expect(rates(resumed)).toEqual(rates(straight));
      expect(other.stateDict()).toEqual(scheduler.stateDict());
    }
    expect(scheduler.stateDict().lastEpoch).toBe(10);
  });

  it('is a copy', () => {
    const milestones = [1];
    const scheduler = new MultiStepLR(sgd(1), { milestones });
    const state = scheduler.stateDict();
    (state.options.milestones as number[]).push(2);
    state.lastLr[0] = 5;
    scheduler.getLastLr()[0] = 5;
    milestones.push(3);
    expect(scheduler.stateDict()).toEqual({ lastEpoch: 0, lastLr: [1], options: { milestones: [1], gamma: 0.1 } });
  });

  it('of another kind is refused, and nothing taken from it', () => {
    const scheduler = new StepLR(sgd(1), { stepSize: 3 });
    const before = scheduler.stateDict();
    const wrong: [object, string][] = [
      [new ExponentialLR(sgd(1), { gamma: 0.5 }).stateDict(), 'stepSize is undefined'],
      [new LinearLR(sgd(1)).stateDict(), 'unknown option "startFactor"'],
      [{ ...before, lastEpoch: -1 }, 'lastEpoch is -1'],
      [{ ...before, lastLr: [1, 2] }, 'lastLr is an array of 2. Expected an array of 1'],
      [{ ...before, lastLr: ['1'] }, 'an entry of lastLr is "1"'],
      [{ ...before, options: { stepSize: 0, gamma: 1 } }, 'stepSize is 0'],
    ];
    for (const [state, message] of wrong) {
      expect(() => scheduler.loadStateDict(state as typeof before)).toThrow(message);
      expect(scheduler.stateDict()).toEqual(before);
    }
    const plateau = new ReduceLROnPlateau(sgd(1));
    expect(() => plateau.loadStateDict({ ...plateau.stateDict(), best: 'low' as unknown as number })).toThrow(
      'best is "low"',
    );
    expect(() => plateau.loadStateDict({ ...plateau.stateDict(), badEpochs: 0.5 })).toThrow('badEpochs is 0.5');
  });
});

describe('a wrong call names what is wrong', () => {
  const any = (options: object) => options as never;
  it.each<[string, (optimizer: optim.SGD) => unknown]>([
    [
      'StepLR: the optimizer is an array of 1. Expected an Optimizer',
      () => new StepLR(any([{ lr: 1 }]), { stepSize: 1 }),
    ],
    ['StepLR: stepSize is undefined', (o) => new StepLR(o, any({}))],
    ['StepLR: stepSize is 0', (o) => new StepLR(o, { stepSize: 0 })],
    ['StepLR: stepSize is 1.5', (o) => new StepLR(o, { stepSize: 1.5 })],
    ['StepLR: gamma is -1', (o) => new StepLR(o, { stepSize: 1, gamma: -1 })],
    ['StepLR: unknown option "step_size"', (o) => new StepLR(o, any({ step_size: 2 }))],
    ['MultiStepLR: milestones is 3', (o) => new MultiStepLR(o, { milestones: any(3 as unknown as object) })],
    ['MultiStepLR: a milestone is -3', (o) => new MultiStepLR(o, { milestones: [-3] })],
    ['MultiStepLR: gamma is NaN', (o) => new MultiStepLR(o, { milestones: [1], gamma: Number.NaN })],
    ['ExponentialLR: gamma is undefined', (o) => new ExponentialLR(o, any({}))],
    ['CosineAnnealingLR: tMax is 0', (o) => new CosineAnnealingLR(o, { tMax: 0 })],
    ['CosineAnnealingLR: etaMin is -1', (o) => new CosineAnnealingLR(o, { tMax: 1, etaMin: -1 })],
    ['LinearLR: startFactor is 0', (o) => new LinearLR(o, { startFactor: 0 })],
    ['LinearLR: endFactor is 1.5', (o) => new LinearLR(o, { endFactor: 1.5 })],
    ['LinearLR: totalIters is 0', (o) => new LinearLR(o, { totalIters: 0 })],
    ['OneCycleLR: maxLr is undefined', (o) => new OneCycleLR(o, any({ totalSteps: 3 }))],
    [
      'OneCycleLR: maxLr has 2 values. Expected one for each of 1',
      (o) => new OneCycleLR(o, { maxLr: [1, 2], totalSteps: 3 }),
    ],
    ['OneCycleLR: totalSteps is undefined', (o) => new OneCycleLR(o, any({ maxLr: 1 }))],
    ['OneCycleLR: pctStart is 2', (o) => new OneCycleLR(o, { maxLr: 1, totalSteps: 3, pctStart: 2 })],
    ['OneCycleLR: divFactor is 0', (o) => new OneCycleLR(o, { maxLr: 1, totalSteps: 3, divFactor: 0 })],
    ['OneCycleLR: finalDivFactor is 0', (o) => new OneCycleLR(o, { maxLr: 1, totalSteps: 3, finalDivFactor: 0 })],
    ['OneCycleLR: maxMomentum is 1', (o) => new OneCycleLR(o, { maxLr: 1, totalSteps: 3, maxMomentum: 1 })],
    [
      'OneCycleLR: annealStrategy is "cosine"',
      (o) => new OneCycleLR(o, { maxLr: 1, totalSteps: 3, annealStrategy: any('cosine' as unknown as object) }),
    ],
    [
      'OneCycleLR: Adagrad has no momentum to cycle. Pass { cycleMomentum: false }',
      () => new OneCycleLR(new optim.Adagrad([leaf([0])]), { maxLr: 1, totalSteps: 3 }),
    ],
    ['ReduceLROnPlateau: mode is "low"', (o) => new ReduceLROnPlateau(o, any({ mode: 'low' }))],
    ['ReduceLROnPlateau: factor is 1', (o) => new ReduceLROnPlateau(o, { factor: 1 })],
    ['ReduceLROnPlateau: patience is -1', (o) => new ReduceLROnPlateau(o, { patience: -1 })],
    ['ReduceLROnPlateau: threshold is -1', (o) => new ReduceLROnPlateau(o, { threshold: -1 })],
    ['ReduceLROnPlateau: thresholdMode is "rel."', (o) => new ReduceLROnPlateau(o, any({ thresholdMode: 'rel.' }))],
    ['ReduceLROnPlateau: cooldown is 0.5', (o) => new ReduceLROnPlateau(o, { cooldown: 0.5 })],
    ['ReduceLROnPlateau: minLr has 0 values', (o) => new ReduceLROnPlateau(o, { minLr: [] })],
    ['ReduceLROnPlateau: minLr is -1', (o) => new ReduceLROnPlateau(o, { minLr: -1 })],
    ['ReduceLROnPlateau: eps is -1', (o) => new ReduceLROnPlateau(o, { eps: -1 })],
    [
      'ReduceLROnPlateau: step: the metric is undefined',
      (o) => new ReduceLROnPlateau(o).step(undefined as unknown as number),
    ],
  ])('%s', (message, call) => {
    const optimizer = sgd(0.5);
    expect(() => call(optimizer)).toThrow(message);
    expect(() => call(optimizer)).toThrow(expect.objectContaining({ code: 'ERR_ARG' }));
    const { params: _, ...group } = optimizer.paramGroups[0]!;
    expect(group).toEqual({ lr: 0.5, momentum: 0, dampening: 0, weightDecay: 0, nesterov: false, maximize: false });
  });
});
