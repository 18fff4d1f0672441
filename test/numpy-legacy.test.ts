// random.numpyLegacy against numbers drawn with numpy 1.24. Long streams are compared by the SHA-256 of their bytes.
import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { random, type Tensor } from '../lib/index.ts';
import { values } from './support.ts';

function sha256(...tensors: Tensor[]): string {
  const hash = createHash('sha256');
  for (const t of tensors) {
    expect(t.dtype).toBe('float64');
    hash.update(new Uint8Array(Float64Array.from(values(t)).buffer));
  }
  return hash.digest('hex');
}

describe('random.numpyLegacy', () => {
  it('draws the normal numbers that the lesson starts with', () => {
    expect(values(random.numpyLegacy(42).randn(16))).toEqual([
      0.4967141530112327, -0.13826430117118466, 0.6476885381006925, 1.5230298564080254, -0.23415337472333597,
      -0.23413695694918055, 1.5792128155073915, 0.7674347291529088, -0.4694743859349521, 0.5425600435859647,
      -0.46341769281246226, -0.46572975357025687, 0.24196227156603412, -1.913280244657798, -1.7249178325130328,
      -0.5622875292409727,
    ]);
  });

  // 2000 numbers use 4000 words: the state of 624 is renewed six times.
  it.each([
    [0, '6e4439fd0cc46b192fb80d5e04e7f18522753795f326b38870d903e380f72e62'],
    [1, '85d59d54e51c4215b093afde4b7981ff4c48dd5c2dc587b1f219d4d901600e03'],
    [42, '3f4a85edbc4a52f872d4c499ac0a737ff21fbb14f3ee0b67e9cedc3bc83ee014'],
    [123456789, 'fa7cec9574498f230ac2bb845c8e6b0f063fa3f839ada02a03f1e2fb4f7ea67c'],
    [2 ** 32 - 1, 'db49d48c0792b926d6ccf7f6463efdd63a4902919c2a30f151ccc0df66e7129f'],
  ])('has the bits of 2000 uniform numbers of seed %i', (seed, expected) => {
    expect(sha256(random.numpyLegacy(seed).rand(2000))).toBe(expected);
  });

  it.each([
    [0, 600, '207e2b3734ae1022fada82b18205472adaff096d93fb4de0f6fa34c67fa7a64f'],
    [1, 2000, '033d4afd4ce36e324bc7beaef939b948df565219608068e14b2723e64f8f844a'],
    [2 ** 32 - 1, 2000, 'fccdb9636899f0038aba4a8ef1d5c6f502431bfb225de6bd69af7558177c13ab'],
  ])('of seed %i has the bits of the first %i normal numbers', (seed, n, expected) => {
    expect(sha256(random.numpyLegacy(seed).randn(n))).toBe(expected);
  });

  it('goes on where it was, whatever is drawn in turn', () => {
    const draws = random.numpyLegacy(5);
    const seen: Tensor[] = [];
    for (let k = 0; k < 40; k++) seen.push(draws.randn(3), draws.rand(7), draws.randn(2, 5), draws.rand(1));
    expect(sha256(...seen)).toBe('8fe785543c6c6d21bb52748bfe79290dba224ecbe102c81b6133f024f008bbdc');
  });

  it('rounds the logarithm correctly: draw 76 of seed 42, where a C library does not, differs in its last bits', () => {
    const [x, glibc] = [values(random.numpyLegacy(42).randn(77))[76]!, 0.08704706823817122];
    expect(x).toBe(0.08704706823817121);
    expect(Math.abs(x - glibc)).toBeLessThan(2 ** -55);
  });

  it('gives tensors of the shape', () => {
    const draws = random.numpyLegacy(1);
    expect(draws.rand(2, 3).shape).toEqual([2, 3]);
    expect(draws.randn().shape).toEqual([]);
    expect(draws.randn(0, 4).shape).toEqual([0, 4]);
    expect(values(draws.rand(2, 2))).toEqual(values(random.numpyLegacy(1).rand(3, 4)).slice(8, 12));
  });

  it.each<[unknown, string]>([
    [1.5, 'numpyLegacy: the seed is 1.5. Expected a whole number >= 0'],
    [-1, 'numpyLegacy: the seed is -1'],
    [2 ** 32, 'numpyLegacy: the seed is 4294967296. Expected less than 2^32'],
    ['1', 'numpyLegacy: the seed is "1"'],
    [undefined, 'numpyLegacy: the seed is undefined'],
  ])('refuses %s as a seed', (seed, message) => {
    expect(() => random.numpyLegacy(seed as number)).toThrow(message);
  });

  it('refuses a shape that is none, and draws nothing for it', () => {
    const draws = random.numpyLegacy(3);
    expect(() => draws.randn(2, -1)).toThrow('randn');
    expect(() => draws.rand(1.5)).toThrow('rand');
    expect(values(draws.rand(1))).toEqual(values(random.numpyLegacy(3).rand(1)));
  });
});
