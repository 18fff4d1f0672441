// The figures of examples/gradient-flow: chains and networks, at fixed seeds.
import { describe, expect, it } from 'vitest';
import {
  blocked,
  explodingFactor,
  geometricMeanSlope,
  meanSlope,
  median,
  pathTable,
  products,
  sigmoidSlope,
} from '../examples/gradient-flow/chains.ts';
import { flowOf, medianRatios, RECIPES, ratios, scaleOfLayer } from '../examples/gradient-flow/networks.ts';
import { pathLines, scientific } from '../examples/gradient-flow/report.ts';
import { runScript } from './support.ts';

describe('the example: one path', () => {
  it('prints the table of the lesson, seeded', () => {
    const rows = pathTable(15, 42);
    const lines = pathLines(rows);
    expect(lines).toHaveLength(16);
    expect(lines[0]).toBe(' Layer     Sigmoid  ReLU (p=0.5)');
    for (const line of lines.slice(1)) expect(line).toMatch(/^ {4}[ 1]\d {4}\d\.\d\de-\d\d {6}[01]\.00e\+00$/);
    expect(pathTable(15, 42)).toEqual(rows);
    rows.forEach(({ layer, sigmoid, relu }, i) => {
      expect(layer).toBe(i + 1);
      expect(sigmoid / (rows[i - 1]?.sigmoid ?? 1)).toBeLessThanOrEqual(0.25);
      expect([0, rows[i - 1]?.relu ?? 1]).toContain(relu);
    });
    expect(rows[14]!.relu).toBe(0);
  });

  it('explains the column of ReLUs: the share of blocked paths', () => {
    expect([1, 5, 15].map(blocked)).toEqual([0.5, 0.96875, 1 - 2 ** -15]);
    const ends = Array.from({ length: 400 }, (_, seed) => pathTable(5, seed)[4]!.relu);
    // 400 paths: two standard errors are 1.7 %.
    expect(ends.filter((relu) => relu === 0).length / 400).toBeCloseTo(blocked(5), 1);
  });

  it('gives the figures of chains', () => {
    expect(scientific(0.25 ** 10)).toBe('9.54e-07');
    expect(0.25 ** 15).toBeCloseTo(9.3132e-10, 13);
    expect(meanSlope()).toBeCloseTo(0.2066, 4);
    expect(geometricMeanSlope()).toBeCloseTo(0.1995, 4);
    expect(median(products(sigmoidSlope, 15, 20_000, 1)) / 3.5e-11).toBeCloseTo(1, 1);
    const ends = products(explodingFactor, 10, 100_000, 1);
    expect(median(ends) / 2.37).toBeCloseTo(1, 1);
    expect(ends.filter((end) => end < 1).length / ends.length).toBeCloseTo(0.4, 1);
    expect(median([3, 1, 2])).toBe(2);
    expect(median([4, 1, 2, 3])).toBe(2.5);
  });
});

describe('the example: networks', () => {
  // Of three seeds: one seed is within a third of the median of many, and the bounds are wider.
  const ratio = (key: keyof typeof RECIPES, depth = 15): number => medianRatios(RECIPES[key], 3, depth)[0]!;

  it('sigmoid and tanh lose the gradient', () => {
    expect(ratio('sigmoid')).toBeGreaterThan(1e-10);
    expect(ratio('sigmoid')).toBeLessThan(1e-8);
    expect(ratio('tanh')).toBeCloseTo(0.21, 1);
  });

  it('ReLU keeps it with the scale of He, and with no other', () => {
    expect(ratio('reluHe')).toBeGreaterThan(0.3);
    expect(ratio('reluHe')).toBeLessThan(3);
    expect(ratio('reluSmall') / 5.1e-3).toBeGreaterThan(2 / 3);
    expect(ratio('reluSmall') / 5.1e-3).toBeLessThan(3 / 2);
    expect(ratio('reluLarge')).toBeGreaterThan(1e3);
    expect(ratio('reluLarge', 10)).toBeGreaterThan(100);
  });

  it('residual connections explode alone, and are bounded with a norm', () => {
    expect(ratio('residual')).toBeGreaterThan(100);
    const [least, most] = [0.1, 10];
    for (const recipe of [RECIPES.layerNorm, RECIPES.batchNorm]) {
      for (const value of medianRatios(recipe, 3)) {
        expect(value).toBeGreaterThan(least);
        expect(value).toBeLessThan(most);
      }
    }
  });

  it('has the ratios that gradientFlow reports', () => {
    const flow = flowOf(RECIPES.reluHe, 0, 4).filter(({ type }) => type === 'ReLU');
    const [input, ...rest] = ratios(RECIPES.reluHe, 0, 4);
    expect(flow).toHaveLength(4);
    flow.forEach(({ ratio, activation }, k) => {
      expect(ratio).toBeCloseTo(rest[k]!, 5);
      expect(activation.zeros).toBeCloseTo(0.5, 1);
    });
    expect(rest[3]).toBe(1);
    expect(input! / rest[0]!).toBeCloseTo(1, 1);
  });

  it('He keeps the mean square of half-active layers, forward and backward', () => {
    const he = scaleOfLayer(RECIPES.reluHe, 1);
    expect(he.active).toBeCloseTo(0.5, 1);
    for (const ratio of [he.forward, he.backward]) expect(Math.abs(ratio - 1)).toBeLessThan(0.1);
    expect(scaleOfLayer(RECIPES.reluSmall, 1).backward).toBeCloseTo(he.backward / 2, 5);
    expect(scaleOfLayer(RECIPES.reluLarge, 1).backward).toBeCloseTo(he.backward * 4, 4);
  });

  it('runs', async () => {
    const { code, stdout, stderr } = await runScript('examples/gradient-flow/main.ts');
    expect(code, stderr).toBe(0);
    expect(stdout).toContain(pathLines(pathTable(15, 42)).join('\n'));
    for (const { title } of Object.values(RECIPES)) expect(stdout).toContain(title);
  });
});
