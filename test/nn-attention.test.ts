// MultiheadAttention and TransformerEncoderLayer against PyTorch's numbers for small weights; masks, shapes, errors.
import { describe, expect, it } from 'vitest';
import { manualSeed, nn, randn, ShapeError, type Tensor, tensor, zeros } from '../lib/index.ts';
import { expectClose, values } from './support.ts';
import { checkAgainst, wave } from './waves.ts';

const F64 = { dtype: 'float64', batchFirst: true } as const;
const bools = (rows: number[][]): Tensor => tensor(rows, { dtype: 'bool' });

describe('against PyTorch', () => {
  it('MultiheadAttention with a mask', () => {
    // Given to PyTorch inverted.
    const mask = bools([
      [1, 1, 0],
      [0, 1, 1],
    ]);
    checkAgainst(new nn.MultiheadAttention(4, 2, F64), {
      inputs: [wave([1, 2, 4], 0.5), wave([1, 3, 4], 0.1), wave([1, 3, 4], 0.2)],
      call: (attention, q, k, v) => attention.call(q, k, v, { mask }),
      outputs: [
        [
          -1.126477986979, 0.2049572966981, 1.586210777019, 1.181174493285, -2.525321395489, 0.6028988701954,
          3.357938708302, 2.443401065417,
        ],
        [0.3638922827567, 0.6361077172433, 0, 0, 0.4283339885585, 0.5716660114415],
      ],
      parameters: ['inProjBias', 'outProj.weight'],
      gradients: [
        [
          -0.3152166767792, 0.2503484755548, 0.4491525246969, -0.01005292709442, 0.5744075864069, 0.3871110027,
          -0.3673041068671, -0.5836178393719,
        ],
        [
          0.2812159112677, -0.8333278708797, -0.7270443699088, 0.4443608362623, -0.5684912953329, 1.039333307876,
          1.124532180148, -0.4377112259957, 0.2872753840652, -0.2060054369962, -0.3974878102387, -0.006649610266624,
        ],
        [
          0.335884656163, 0.8650041940969, 0.1268905611896, -0.7971180411335, -0.4800497814238, 0.7240288325049,
          0.8674035105948, -0.259969986447, -1.338653429714, -0.9825407319528, 0.8129964399672, 1.417491922687,
        ],
        [
          0.2981350296016, 0.4507052618191, 0.03312920741081, -0.181180368648, 0, 0, 0, 0, 1.028077045828,
          -0.09918237456493, -1.081139383861, -0.4792246629606,
        ],
        [
          -0.5084614701741, -0.8883746817921, -0.4074447729738, -0.1417600733907, 0.4279074965451, 0.5781411659667,
          -0.1637193309302, -1.152594143621, 0.9708602843372, 1.51311669197, 0.2305289089403, -1.103738473666,
          0.6212086040614, 1.056939709472, 0.4128299330696, -0.0401107411736,
        ],
      ],
    });
  });

  const layer = { dimFeedforward: 3, dropout: 0, ...F64 };

  it('TransformerEncoderLayer, causal', () => {
    checkAgainst(new nn.TransformerEncoderLayer(4, 2, layer), {
      inputs: [wave([1, 3, 4], 0.5)],
      call: (encoder, x) => [encoder.call(x, { isCausal: true })],
      outputs: [
        [
          -1.357660965119, 0.759827959308, 0.08455398143599, 0.322943564667, -0.8743259803087, 0.5873744172622,
          -0.3107848963421, 0.5313828370867, -0.8943491442324, 0.600848390937, -0.2906121311243, 0.5369372973294,
        ],
      ],
      parameters: ['linear1.bias'],
      gradients: [
        [
          0.02965204418326, -0.08964355645273, 0.09051031059395, -0.04162265951003, -0.1431377890636, 0.1655502495022,
          -0.2469582139907, 0.2044049695111, 0.03376266471188, -0.05816964667183, 0.08534483564287, -0.05888110534417,
        ],
        [0.007537402038828, 0.06541205786052, 0.02745789567239],
      ],
    });
  });

  it('TransformerEncoderLayer with gelu, normalising first', () => {
    checkAgainst(new nn.TransformerEncoderLayer(4, 2, { ...layer, activation: 'gelu', normFirst: true }), {
      inputs: [wave([1, 3, 4], 0.5)],
      call: (encoder, x) => [encoder.call(x, { isCausal: true })],
      outputs: [
        [
          -1.95323097496, -0.6116025002667, 2.139039479119, 2.371941232647, -2.871526744512, -1.029901361284,
          2.816564992159, 3.122996431585, -3.099354879246, -1.681387849379, 2.847050657693, 3.832541530891,
        ],
      ],
      parameters: ['linear1.bias'],
      gradients: [
        [
          1.796961870382, -0.07928743606157, -0.3574788877872, -1.226032573813, -1.026330182455, 0.895496988093,
          0.382823961323, 1.092100338633, 0.07656572757607, -1.244583326363, -0.1235735820848, -0.5996849459095,
        ],
        [0.01727332617114, 0.08993154462559, 0.009817265069402],
      ],
    });
  });
});

describe('MultiheadAttention', () => {
  const random = (...shape: number[]): Tensor => randn(shape, { dtype: 'float64' });

  it('has PyTorch’s parameters and their first values', () => {
    manualSeed(1);
    const attention = new nn.MultiheadAttention(30, 3, { batchFirst: true });
    const shapes = Object.fromEntries([...attention.namedParameters()].map(([name, { shape }]) => [name, shape]));
    expect(shapes).toEqual({
      inProjWeight: [90, 30],
      inProjBias: [90],
      'outProj.weight': [30, 30],
      'outProj.bias': [30],
    });
    expect([...values(attention.inProjBias!), ...values(attention.outProj.bias!)].every((v) => v === 0)).toBe(true);
    const drawn = values(attention.inProjWeight).map(Math.abs);
    const bound = Math.sqrt(6 / 120);
    expect(Math.max(...drawn)).toBeLessThanOrEqual(bound * (1 + 1e-6));
    expect(Math.max(...drawn)).toBeGreaterThan(0.98 * bound);
    expect([...new nn.MultiheadAttention(4, 1, { bias: false }).stateDict().keys()]).toEqual([
      'inProjWeight',
      'outProj.weight',
    ]);
  });

  it('returns weights that sum to 1, averaged over the heads, or none', () => {
    const attention = new nn.MultiheadAttention(6, 3, F64);
    const [q, kv] = [random(2, 4, 6), random(2, 5, 6)];
    const [output, weights] = attention.call(q, kv, kv);
    expect([output.shape, weights!.shape]).toEqual([
      [2, 4, 6],
      [2, 4, 5],
    ]);
    expectClose(values(weights!.sum(-1)), new Array(8).fill(1), 1e-14);
    const [same, none] = attention.call(q, kv, kv, { needWeights: false });
    expect(none).toBeNull();
    expect(values(same)).toEqual(values(output));
  });

  it('takes and gives the length before the batch, unless told otherwise', () => {
    const [first, second] = [
      new nn.MultiheadAttention(6, 3, F64),
      new nn.MultiheadAttention(6, 3, { dtype: 'float64' }),
    ];
    second.loadStateDict(first.stateDict());
    const [q, kv] = [random(2, 4, 6), random(2, 5, 6)];
    const turned = (t: Tensor): Tensor => t.transpose(0, 1);
    const [output, weights] = first.call(q, kv, kv);
    const [other, same] = second.call(turned(q), turned(kv), turned(kv));
    expect(other.shape).toEqual([4, 2, 6]);
    expect([values(turned(other)), values(same!)]).toEqual([values(output), values(weights!)]);
    const layers = [true, false].map((batchFirst) =>
      new nn.TransformerEncoderLayer(6, 2, { ...F64, batchFirst }).eval(),
    );
    layers[1]!.loadStateDict(layers[0]!.stateDict());
    expect(values(turned(layers[1]!.call(turned(q))))).toEqual(values(layers[0]!.call(q)));
  });

  it('takes one sequence without a batch', () => {
    const attention = new nn.MultiheadAttention(6, 3, F64);
    const x = random(2, 4, 6);
    const [whole, weights] = attention.call(x, x, x, { isCausal: true });
    const one = x.select(0, 1);
    const [alone, own] = attention.call(one, one, one, { isCausal: true });
    expectClose(values(alone), values(whole.select(0, 1)), 1e-14);
    expectClose(values(own!), values(weights!.select(0, 1)), 1e-14);
  });

  it('lets true take part, hides what is false, and adds a mask of numbers', () => {
    const attention = new nn.MultiheadAttention(6, 2, F64);
    const x = random(2, 3, 6);
    const causal = bools([
      [1, 0, 0],
      [1, 1, 0],
      [1, 1, 1],
    ]);
    const [output, weights] = attention.call(x, x, x, { mask: causal });
    expect(values(attention.call(x, x, x, { isCausal: true })[0])).toEqual(values(output));
    expect(values(weights!.select(0, 0).select(0, 1))[2]).toBe(0);
    const added = tensor(
      values(causal).map((v) => (v ? 0 : -Infinity)),
      { shape: [3, 3], dtype: 'float64' },
    );
    expect(values(attention.call(x, x, x, { mask: added })[0])).toEqual(values(output));
    // Padding: the second sequence has two keys.
    const padding = tensor([1, 1, 1, 1, 1, 0], { shape: [2, 1, 1, 3], dtype: 'bool' });
    const padded = attention.call(x, x, x, { mask: padding })[0];
    const short = x.narrow(0, 1, 1).narrow(1, 0, 2);
    expectClose(values(padded.narrow(0, 1, 1).narrow(1, 0, 2)), values(attention.call(short, short, short)[0]), 1e-13);
  });

  it('gives NaN to a query that may see nothing', () => {
    const attention = new nn.MultiheadAttention(2, 1, F64);
    const x = random(1, 2, 2);
    const mask = bools([
      [0, 0],
      [1, 0],
    ]);
    const found = values(attention.call(x, x, x, { mask })[0]);
    expect(found.map(Number.isNaN)).toEqual([true, true, false, false]);
  });

  it('drops weights in training only', () => {
    manualSeed(3);
    const attention = new nn.MultiheadAttention(6, 2, { dropout: 0.5, ...F64 });
    const x = random(2, 8, 6);
    const call = (): [Tensor, Tensor] => attention.call(x, x, x) as [Tensor, Tensor];
    expect(values(call()[1]).filter((v) => v === 0).length).toBeGreaterThan(5);
    attention.eval();
    expect(values(call()[1]).filter((v) => v === 0)).toEqual([]);
    expect(values(call()[0])).toEqual(values(call()[0]));
  });

  it('refuses what does not fit', () => {
    const attention = new nn.MultiheadAttention(6, 2, { batchFirst: true });
    const x = zeros([2, 3, 6]);
    expect(() => attention.call(zeros([2, 3, 5]), x, x)).toThrow(
      'MultiheadAttention: the query has shape [2,3,5]. Expected (N, length, 6), or without N',
    );
    expect(() => attention.call(x, zeros([6]), x)).toThrow(ShapeError);
    expect(() => attention.call(x, x, zeros([2, 4, 6]))).toThrow(/^MultiheadAttention: .* do not fit together/);
    expect(() => attention.call(x, x, x, { mask: zeros([3, 3]), isCausal: true })).toThrow('both a mask and isCausal');
    expect(() => attention.call(x, x, x, { attnMask: null } as object)).toThrow('unknown option "attnMask"');
    expect(() => new nn.MultiheadAttention(6, 4, { batchFirst: true })).toThrow(
      'embedDim 6 does not divide into 4 heads',
    );
    expect(() => new nn.MultiheadAttention(6, 2, { dropout: -1 })).toThrow('MultiheadAttention: dropout is -1');
    expect(() => new nn.MultiheadAttention(6, 2, { kdim: 3 } as object)).toThrow('unknown option "kdim"');
  });
});

describe('TransformerEncoderLayer', () => {
  it('has PyTorch’s submodules and defaults', () => {
    const layer = new nn.TransformerEncoderLayer(8, 2, { batchFirst: true });
    expect([...layer.namedChildren()].map(([name]) => name)).toEqual([
      ...['selfAttn', 'linear1', 'dropout', 'linear2', 'norm1', 'norm2', 'dropout1', 'dropout2'],
    ]);
    expect(layer.linear1.weight.shape).toEqual([2048, 8]);
    expect([layer.dropout.p, layer.selfAttn.dropout, layer.normFirst]).toEqual([0.1, 0.1, false]);
  });

  it('drops in training only, and shares no position’s future when causal', () => {
    manualSeed(4);
    const layer = new nn.TransformerEncoderLayer(8, 2, { dimFeedforward: 16, ...F64 });
    const x = randn([2, 5, 8], { dtype: 'float64' });
    const run = (input: Tensor): number[] => values(layer.call(input, { isCausal: true }));
    expect(run(x)).not.toEqual(run(x));
    layer.eval();
    const whole = layer.call(x, { isCausal: true });
    expect(run(x)).toEqual(values(whole));
    expectClose(run(x.narrow(1, 0, 3)), values(whole.narrow(1, 0, 3)), 1e-13);
  });

  it('refuses what it does not know', () => {
    expect(() => new nn.TransformerEncoderLayer(8, 2, { activation: 'tanh' as 'relu' })).toThrow(
      'activation is "tanh"',
    );
    expect(() => new nn.TransformerEncoderLayer(8, 2, { heads: 2 } as object)).toThrow('unknown option "heads"');
  });
});
