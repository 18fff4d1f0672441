// RNN, LSTM and GRU against PyTorch's numbers for small weights; their shapes, states, initialisation and errors.
import { describe, expect, it } from 'vitest';
import { manualSeed, nn, randn, ShapeError, type Tensor, tensor, zeros } from '../lib/index.ts';
import { expectClose, values } from './support.ts';
import { checkAgainst, wave } from './waves.ts';

const F64 = { dtype: 'float64' } as const;

describe('against PyTorch', () => {
  it('RNN with relu and a given state', () => {
    checkAgainst(new nn.RNN(2, 2, { nonlinearity: 'relu', ...F64 }), {
      phase: 4,
      inputs: [wave([3, 1, 2], 0.5), wave([1, 1, 2], 0.9)],
      call: (net, x, h0) => net.call(x, h0),
      outputs: [
        [0, 2.864773887528, 0.8273235068375, 1.950245980814, 0, 3.134631090518],
        [0, 3.134631090518],
      ],
      parameters: ['weightHhL0'],
      gradients: [
        [0.06949977161684, 0.222847439369, -0.2987619395595, -0.674957956936, 0.2053592168928, 0.6584737556791],
        [0.2159270133218, 0.1117695406684],
        [0, 0.6356312048109, 0.8564325862315, -0.1026923741702],
      ],
    });
  });

  it('LSTM of two layers in both directions', () => {
    checkAgainst(new nn.LSTM(2, 2, { numLayers: 2, bidirectional: true, ...F64 }), {
      inputs: [wave([3, 1, 2], 0.5), wave([4, 1, 2], 0.1), wave([4, 1, 2], 0.2)],
      call: (net, x, h0, c0) => {
        const [output, state] = net.call(x, [h0, c0]);
        return [output, ...state];
      },
      outputs: [
        [
          -0.3908341294874, -0.1957816705556, 0.1333987742035, 0.03286506743192, -0.3549183836132, -0.3389247871037,
          0.1243860091888, 0.02549460757433, -0.4075934487307, -0.4220518874295, 0.07557193725531, 0.06242910908525,
        ],
        [
          0.09761134263606, -0.01094636585734, -0.1960989701638, 0.1019059200411, -0.4075934487307, -0.4220518874295,
          0.1333987742035, 0.03286506743192,
        ],
        [
          0.5936065451655, -0.01788190611775, -0.2840188120118, 1.004589468666, -0.9186125242903, -0.5582379253528,
          0.7465953130977, 0.09939040011992,
        ],
      ],
      parameters: ['weightHhL0Reverse', 'biasIhL1'],
      gradients: [
        [0.01741077332366, 0.1277630110058, 0.0521727127183, 0.2082890674899, 0.04745471378725, 0.4121528595373],
        [
          0.05408422989225, -0.07335481249745, 0.1286128513605, 0.16696668623, -0.1590173740098, -0.2626769496141,
          0.06247969259387, 0.01554006221131,
        ],
        [
          0.2127774275204, 0.3870327393004, -0.06714099700608, -0.02145288611575, -0.2448116525456, 0.2579901402282,
          0.02980442157264, 0.3869760389705,
        ],
        [
          0.01432962994903, 0.00774783662317, -0.04554458387816, -0.02407929263647, -0.01409071280991,
          0.002330169952446, -0.0376025486265, -0.03401769074344, -0.1829769759566, 0.06377331121744, -0.042478660361,
          -0.02239517095439, 0.003061974426613, 0.003795114027542, -0.02783555539304, -0.0128773745816,
        ],
        [
          0.3781916590635, -0.05353448072493, 0.247014055927, 0.03139626715889, -0.1083771202753, 0.0930434976303,
          0.1155864022495, 0.01329695573711,
        ],
      ],
    });
  });

  it('GRU with the batch first', () => {
    checkAgainst(new nn.GRU(2, 2, { batchFirst: true, ...F64 }), {
      inputs: [wave([2, 3, 2], 0.5)],
      call: (net, x) => net.call(x),
      outputs: [
        [
          0.2436460985989, 0.1022057950891, 0.4842771604597, 0.008755546446901, 0.6164668731031, -0.09290211320678,
          0.1706185889241, 0.05244753642591, 0.571479428208, -0.1697728861759, 0.4727786999957, -0.004003841610435,
        ],
        [0.6164668731031, -0.09290211320678, 0.4727786999957, -0.004003841610435],
      ],
      parameters: ['weightHhL0', 'biasHhL0'],
      gradients: [
        [
          -0.1565143831236, -0.04436633121775, -0.02300056900456, -0.01015006940756, 0.2088516888839, 0.04855884345004,
          -0.2983085012867, -0.0117159961181, -0.2894927327298, 0.1632776960498, 0.2667785915781, -0.2177860209846,
        ],
        [
          -6.50075143615e-5, -0.0009868066448205, 0.003867458910371, 0.001905703761083, -0.02393182739953,
          0.02302045913371, 0.03366622363645, -0.04192908682003, -0.1753079548683, 0.04694046802757, -0.008542079479839,
          -0.003362943547434,
        ],
        [0.0230330689275, 0.03533653867274, -0.09700082135201, -0.1794274316491, -0.01277478435174, -0.07432196840917],
      ],
    });
  });
});

type Outcome = [output: Tensor, ...state: Tensor[]];
type Run = (input: Tensor, ...state: Tensor[]) => Outcome;
type Options = NonNullable<ConstructorParameters<typeof nn.GRU>[2]>;

/** All three, called alike: the LSTM's state is two tensors. */
const KINDS: [name: 'RNN' | 'LSTM' | 'GRU', make: (options: Options) => [net: nn.RNN | nn.LSTM | nn.GRU, run: Run]][] =
  [
    [
      'RNN',
      (options) => {
        const net = new nn.RNN(3, 4, { ...F64, ...options });
        return [net, (x, h0) => net.call(x, h0)];
      },
    ],
    [
      'LSTM',
      (options) => {
        const net = new nn.LSTM(3, 4, { ...F64, ...options });
        return [
          net,
          (x, ...state) => {
            const [output, [h, c]] = net.call(x, state.length > 0 ? (state as [Tensor, Tensor]) : undefined);
            return [output, h, c];
          },
        ];
      },
    ],
    [
      'GRU',
      (options) => {
        const net = new nn.GRU(3, 4, { ...F64, ...options });
        return [net, (x, h0) => net.call(x, h0)];
      },
    ],
  ];

describe.each(KINDS)('%s', (name, make) => {
  const random = (...shape: number[]): Tensor => randn(shape, F64);

  it('draws everything from U(±1/√hiddenSize), under PyTorch’s names in camelCase', () => {
    manualSeed(1);
    const gates = { RNN: 1, LSTM: 4, GRU: 3 }[name];
    const [net] = make({ numLayers: 2, bidirectional: true });
    const shapes = Object.fromEntries([...net.namedParameters()].map(([key, { shape }]) => [key, shape]));
    const expected = ['L0', 'L0Reverse', 'L1', 'L1Reverse'].flatMap((suffix) => [
      [`weightIh${suffix}`, [4 * gates, suffix.startsWith('L0') ? 3 : 8]],
      [`weightHh${suffix}`, [4 * gates, 4]],
      [`biasIh${suffix}`, [4 * gates]],
      [`biasHh${suffix}`, [4 * gates]],
    ]);
    expect(shapes).toEqual(Object.fromEntries(expected));
    const drawn = [...net.parameters()].flatMap(values).map(Math.abs);
    expect(Math.max(...drawn)).toBeLessThanOrEqual(0.5);
    expect(Math.max(...drawn)).toBeGreaterThan(0.45);
    expect([...make({ bias: false })[0].stateDict().keys()]).toEqual(['weightIhL0', 'weightHhL0']);
  });

  it('goes on from the state where it stopped', () => {
    const [net, run] = make({ numLayers: 2 });
    const x = random(5, 2, 3);
    const [whole, ...last] = run(x);
    const [first, ...state] = run(x.narrow(0, 0, 2));
    const [second, ...end] = run(x.narrow(0, 2, 3), ...state);
    expectClose([...values(first), ...values(second)], values(whole), 1e-14);
    end.forEach((t, i) => void expectClose(values(t), values(last[i]!), 1e-14));
    // The state is the last step's output, layer by layer: the last layer's can be seen.
    expect(values(last[0]!.select(0, 1))).toEqual(values(whole.select(0, 4)));
    expect(net.training).toBe(true);
  });

  it('gives one sequence what it gives a batch of them, and either order of dimensions', () => {
    const [net, run] = make({ bidirectional: true });
    const x = random(5, 2, 3);
    const [whole, h] = run(x);
    expect([whole.shape, h!.shape]).toEqual([
      [5, 2, 8],
      [2, 2, 4],
    ]);
    const [alone, hAlone] = run(x.select(1, 1));
    expect([alone.shape, hAlone!.shape]).toEqual([
      [5, 8],
      [2, 4],
    ]);
    expectClose(values(alone), values(whole.select(1, 1)), 1e-14);
    expectClose(values(hAlone!), values(h!.select(1, 1)), 1e-14);
    const [other, runOther] = make({ bidirectional: true, batchFirst: true });
    other.loadStateDict(net.stateDict());
    expectClose(values(runOther(x.transpose(0, 1))[0].transpose(0, 1)), values(whole), 1e-14);
  });

  it('turns the sequence round for the second direction', () => {
    const [net, run] = make({ bidirectional: true });
    const state = net.stateDict();
    const swapped = new Map(
      [...state].map(([key, t]) => [key.endsWith('Reverse') ? key.slice(0, -7) : `${key}Reverse`, t]),
    );
    const [mirror, runMirror] = make({ bidirectional: true });
    mirror.loadStateDict(swapped);
    const x = random(4, 2, 3);
    const turned = runMirror(x.flip(0))[0].flip(0);
    expectClose(values(turned.roll(4, 2)), values(run(x)[0]), 1e-14);
  });

  it('drops outputs between layers, in training only', () => {
    manualSeed(2);
    const [net, run] = make({ numLayers: 2, dropout: 0.5 });
    const x = random(4, 2, 3);
    expect(values(run(x)[0])).not.toEqual(values(run(x)[0]));
    net.eval();
    expect(values(run(x)[0])).toEqual(values(run(x)[0]));
    const [single, runSingle] = make({ dropout: 0.9 });
    expect(single.training).toBe(true);
    expect(values(runSingle(x)[0])).toEqual(values(runSingle(x)[0]));
  });

  it('refuses what does not fit', () => {
    const [, run] = make({ numLayers: 2 });
    expect(() => run(zeros([5, 2, 4], F64))).toThrow(
      `${name}: an input of shape [5,2,4]. Expected (L, N, 3), or (L, 3)`,
    );
    expect(() => run(zeros([3], F64))).toThrow(ShapeError);
    expect(() => run(zeros([0, 2, 3], F64))).toThrow(`${name}: a sequence of no steps: [0,2,3]`);
    const state = [zeros([2, 2, 5], F64), zeros([2, 2, 5], F64)].slice(0, name === 'LSTM' ? 2 : 1);
    expect(() => run(zeros([5, 2, 3], F64), ...state)).toThrow(
      `${name}: an initial state of shape [2,2,5]. Expected [2,2,4]`,
    );
    expect(() => make({ numLayers: 0 })).toThrow(`${name}: numLayers is 0`);
    expect(() => make({ dropout: 2 })).toThrow(`${name}: dropout is 2`);
    expect(() => make({ hidden: 3 } as Options)).toThrow(`${name}: unknown option "hidden"`);
  });
});

it('explains options and states that only some have', () => {
  expect(() => new nn.RNN(2, 3, { nonlinearity: 'gelu' as 'relu' })).toThrow('RNN: nonlinearity is "gelu"');
  const state = tensor([1]) as unknown as [Tensor, Tensor];
  expect(() => new nn.LSTM(2, 3).call(zeros([4, 1, 2]), state)).toThrow('LSTM: the initial state is a Tensor');
});

it('a long sequence has gradients in time that grows as it does', () => {
  const net = new nn.RNN(1, 1, { nonlinearity: 'relu', bias: false, ...F64 });
  net.loadStateDict({ weightIhL0: tensor([[1]], F64), weightHhL0: tensor([[1]], F64) });
  const x = tensor(new Float64Array(1000).fill(1), { shape: [1000, 1], requiresGrad: true });
  const [output] = net.call(x);
  expect(values(output)).toEqual(Array.from({ length: 1000 }, (_, i) => i + 1));
  output.sum().backward();
  expect(values(x.grad!)).toEqual(Array.from({ length: 1000 }, (_, i) => 1000 - i));
});
