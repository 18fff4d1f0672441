// BatchNorm and GroupNorm against PyTorch's numbers for small weights: statistics, evaluation, buffers, errors.
import { describe, expect, it } from 'vitest';
import { batchNorm, grad, nn, ones, randn, ShapeError, type Tensor, tensor, zeros } from '../lib/index.ts';
import { expectClose, values } from './support.ts';
import { checkAgainst, fill, wave, weighted } from './waves.ts';

const F64 = { dtype: 'float64' } as const;
const TOLERANCE = 1e-11;

/** Output and gradient of the input. */
function outcome(norm: nn.Module, x: Tensor): [output: number[], gradient: number[]] {
  const y = norm.call(x.requiresGrad_());
  return [values(y), values(grad(weighted(y), x)[0]!)];
}
const statisticsOf = ({ runningMean, runningVar }: nn.BatchNorm1d | nn.BatchNorm2d): [number[], number[]] => [
  values(runningMean!),
  values(runningVar!),
];

describe('against PyTorch', () => {
  it('BatchNorm1d trains, follows the statistics, and evaluates by them', () => {
    const norm = fill(new nn.BatchNorm1d(2, F64));
    const first = outcome(norm, wave([4, 2], 0.5));
    expectClose(
      first[0],
      [
        1.0542927589984, 0.547676526120463, 0.506606635214692, -0.983088150518113, -0.234240180027831,
        0.295766712931458, 1.58309255165692, -0.365141309792202,
      ],
      TOLERANCE,
    );
    expectClose(
      first[1],
      [
        0.688613237437468, -0.151029306708245, -0.642722922308021, -0.440786667918762, 0.18025647143589,
        -0.203490821380122, -0.226146786565338, 0.79530679600713,
      ],
      TOLERANCE,
    );
    norm.call(wave([4, 2], 0.9));
    const [mean, variance] = statisticsOf(norm);
    expectClose(mean, [0.0339718730144897, 0.0124286723388409], TOLERANCE);
    expectClose(variance, [0.853592556640683, 0.911752850588829], TOLERANCE);
    expect(norm.numBatchesTracked!.item()).toBe(2);

    checkAgainst(norm.eval(), {
      inputs: [wave([1, 2, 3], 0.3)],
      call: (module, x) => [module.call(x)],
      outputs: [
        [
          0.874942966515866, 1.28533305530914, 0.842142882728434, -0.569585102036536, -0.486598683625567,
          0.113001967057476,
        ],
      ],
      parameters: ['weight'],
      gradients: [
        [
          0.728620320034067, 0.393675239016788, -0.303213041226144, -0.618511988769726, -0.408373212196339,
          0.177222012360803,
        ],
        [0.59598451743841, 1.24442180693973],
      ],
    });
    expect(statisticsOf(norm)).toEqual([mean, variance]);
    expect(norm.numBatchesTracked!.item()).toBe(2);
  });

  it('BatchNorm2d with momentum null averages over all batches', () => {
    const norm = fill(new nn.BatchNorm2d(2, { momentum: null, ...F64 }));
    norm.call(wave([2, 2, 2, 1], 0.5));
    norm.call(wave([2, 2, 2, 1], 0.9));
    const y = norm.call(wave([2, 2, 2, 1], 1.7));
    expectClose(
      values(y),
      [
        1.376563106242, -0.303237037595084, -0.5688822807717, -0.093467543545854, 0.560456194691632, 1.27596950250363,
        0.834528817340077, -0.676965214280917,
      ],
      TOLERANCE,
    );
    const [mean, variance] = statisticsOf(norm);
    expectClose(mean, [0.434659884678031, -0.267579733427042], TOLERANCE);
    expectClose(variance, [0.1810272143457, 0.265125586468948], TOLERANCE);
  });

  it('GroupNorm', () => {
    checkAgainst(new nn.GroupNorm(2, 4, F64), {
      inputs: [wave([1, 4, 3], 0.5)],
      call: (module, x) => [module.call(x)],
      outputs: [
        [
          1.09649588354732, 1.58810890292033, 0.661138635246814, -1.06010091276778, -0.70683030533279,
          0.357319056556619, -1.16142711149302, -0.629123762203289, -0.223104361860698, 0.270949107765117,
          -1.00471180369738, -0.987660349558625,
        ],
      ],
      parameters: ['weight'],
      gradients: [
        [
          0.871180053116007, -0.217696759050604, -0.430646986506066, 0.0357370662005037, -0.0134381928244868,
          -0.245135180935354, -0.758734314269542, -0.736444059513895, -0.26077203668592, 0.961868150262859,
          0.976545657769846, -0.182463397563348,
        ],
        [1.2800065439869, 2.4159026328591, 0.875843213875879, -0.088579459243932],
      ],
    });
  });
});

describe('batchNorm', () => {
  it('updates whichever running statistics it is given, in place and outside the graph', () => {
    const x = tensor([[1], [3]], { requiresGrad: true });
    const [runningMean, runningVar] = [tensor([10]), tensor([1])];
    batchNorm(x, { runningMean, training: true, momentum: 0.5 });
    expect(runningMean.item()).toBe(6);
    // The variance of 1 and 3 is 1 by n, 2 by n - 1: the running one takes the latter.
    batchNorm(x, { runningVar, training: true, momentum: 0.25 });
    expect(runningVar.item()).toBe(1.25);
    expect([runningMean.requiresGrad, runningVar.requiresGrad]).toEqual([false, false]);
  });

  it('changes nothing when it throws', () => {
    const [runningMean, shared] = [zeros([2]), ones([1]).expand([2])];
    const options = { runningMean, runningVar: shared, training: true };
    expect(() => batchNorm(randn([4, 2]), options)).toThrow(/^batchNorm: \[2\] is an expanded view/);
    expect(() => batchNorm(randn([1, 2]), { runningMean, training: true })).toThrow('more than 1 value per channel');
    expect(values(runningMean)).toEqual([0, 0]);
  });
});

describe('modules', () => {
  it('keep weight, bias and buffers under their names', () => {
    const norm = new nn.BatchNorm1d(3);
    norm.call(randn([5, 3]));
    const state = norm.stateDict();
    expect([...state].map(([name, t]) => [name, t.dtype, t.shape])).toEqual([
      ['weight', 'float32', [3]],
      ['bias', 'float32', [3]],
      ['runningMean', 'float32', [3]],
      ['runningVar', 'float32', [3]],
      ['numBatchesTracked', 'int32', []],
    ]);
    expect([...norm.namedParameters()].map(([name]) => name)).toEqual(['weight', 'bias']);
    const other = new nn.BatchNorm1d(3);
    other.loadStateDict(state);
    expect(statisticsOf(other)).toEqual(statisticsOf(norm));
    expect(other.numBatchesTracked!.item()).toBe(1);
    expect(other.to('float64').runningMean!.dtype).toBe('float64');
    expect(other.eval().call(randn([2, 3], F64)).dtype).toBe('float64');
    expect([...new nn.GroupNorm(2, 4, { affine: false }).stateDict().keys()]).toEqual([]);
    const bare = new nn.BatchNorm2d(3, { affine: false });
    expect([...bare.stateDict().keys()]).toEqual(['runningMean', 'runningVar', 'numBatchesTracked']);
  });

  it('without running statistics normalise by the batch, in evaluation too', () => {
    const norm = new nn.BatchNorm1d(2, { trackRunningStats: false, ...F64 });
    const x = randn([50, 2], F64);
    expect([...norm.stateDict().keys()]).toEqual(['weight', 'bias']);
    expect(values(norm.eval().call(x))).toEqual(values(norm.train().call(x)));
    expectClose(values(norm.call(x).mean(0)), [0, 0], 1e-14);
  });

  it('refuse what does not fit, and count no batch then', () => {
    const [one, two] = [new nn.BatchNorm1d(3), new nn.BatchNorm2d(3)];
    expect(() => one.call(zeros([2, 4]))).toThrow(
      'BatchNorm1d: an input of shape [2,4]. Expected 2 or 3 dimensions, the second of size 3.',
    );
    expect(() => one.call(zeros([2, 3, 4, 4]))).toThrow(ShapeError);
    expect(() => two.call(zeros([2, 3, 4]))).toThrow('BatchNorm2d: an input of shape [2,3,4]. Expected 4 dimensions');
    expect(() => one.call(zeros([1, 3]))).toThrow('Expected more than 1 value per channel when training');
    expect(one.numBatchesTracked!.item()).toBe(0);
    expect(values(one.runningVar!)).toEqual([1, 1, 1]);
    expect(one.eval().call(zeros([1, 3])).shape).toEqual([1, 3]);
    expect(() => new nn.GroupNorm(3, 4)).toThrow('GroupNorm: 4 channels do not divide into 3 groups');
    expect(() => new nn.BatchNorm1d(0)).toThrow('BatchNorm1d: the number of features is 0');
    expect(() => new nn.BatchNorm2d(3, { momentum: 1.5 })).toThrow('BatchNorm2d: momentum is 1.5');
  });
});
