// Vanishing and exploding gradients, in numbers that can be drawn again: npx tsx examples/gradient-flow/main.ts
import {
  blocked,
  explodingFactor,
  geometricMeanSlope,
  meanSlope,
  median,
  pathTable,
  products,
  sigmoidSlope,
} from './chains.ts';
import { BATCH, DEPTH, flowOf, medianRatios, RECIPES, type Recipe, scaleOfLayer, WIDTH } from './networks.ts';
import { pathLines, percent, scientific, table } from './report.ts';

const SEED = 42;
const SEEDS = 20;
const PATHS = 100_000;

function heading(text: string): void {
  console.log(`\n${text}\n${'-'.repeat(text.length)}`);
}

function onePath(): void {
  heading(`One path through ${DEPTH} layers (seed ${SEED})`);
  console.log(pathLines(pathTable(DEPTH, SEED)).join('\n'));
  const chances = [1, 5, DEPTH].map((k) => `${percent(blocked(k), k === DEPTH ? 3 : 1)} after ${k}`);
  console.log(`
Sigmoid: each slope is 0.25 at most, so 0.25^10 = ${scientific(0.25 ** 10)} and 0.25^15 = ${scientific(0.25 ** DEPTH)} are bounds. At
inputs from N(0, 1) the slope is ${meanSlope().toFixed(4)} on average and ${geometricMeanSlope().toFixed(4)} as a geometric mean: the median of ${PATHS}
paths is ${scientific(median(products(sigmoidSlope, DEPTH, PATHS, SEED)))}.
ReLU: each slope is 0 or 1 by the toss of a coin, and one 0 ends the path: ${chances.join(', ')}
layers. The column says how soon a path is blocked. It does not say that a layer is: a layer has many paths, and
those that are open carry the gradient. That takes a network.`);
}

function explodingPath(): void {
  heading('Factors that are above 1 on average');
  const ends = products(explodingFactor, 10, PATHS, SEED);
  const below = ends.filter((end) => end < 1).length / PATHS;
  const factors = products(explodingFactor, 1, PATHS, SEED);
  const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b) / values.length;
  console.log(
    `2 |N(0, 1)| has mean ${mean(factors).toFixed(2)}, and the mean of its logarithm is only ${mean(factors.map(Math.log)).toFixed(2)}: after 10 layers the\n` +
      `median product is ${median(ends).toFixed(2)}, and ${percent(below, 0)} of the products are below 1. The mean is no measure of a product.`,
  );
}

function networks(): void {
  heading(`Networks of ${DEPTH} layers x ${WIDTH}, batches of ${BATCH}`);
  console.log(`|gradient| after a layer over |gradient| after the last, median of ${SEEDS} seeds:\n`);
  const recipes = Object.values<Recipe>(RECIPES);
  const ratios = recipes.map((recipe) => medianRatios(recipe, SEEDS));
  const layers = [0, 1, 2, 3, 4, 5, 10, DEPTH];
  console.log(
    table(
      ['', ...layers.map((k) => (k === 0 ? 'input' : `layer ${k}`))],
      recipes.map(({ title }, i) => [title, ...layers.map((k) => scientific(ratios[i]![k]!))]),
    ),
  );
  const exploding = medianRatios(RECIPES.reluLarge, SEEDS, 10)[0]!;
  console.log(`
Sigmoids lose the gradient. ReLUs keep it with weights of He's scale: with half of that variance it vanishes, with
four times as much it explodes (by ${exploding.toFixed(0)} in 10 layers). A residual connection alone adds to the gradient in every
layer; with a norm before each layer the sum stays bounded.`);
}

function whyHe(): void {
  heading('Why He: one layer of ReLUs, mean squares');
  const row = (recipe: Recipe): string[] => {
    const scales = Array.from({ length: SEEDS }, (_, seed) => scaleOfLayer(recipe, seed));
    const of = (key: keyof (typeof scales)[0]): number => median(scales.map((scale) => scale[key]));
    return [recipe.title, percent(of('active')), of('forward').toFixed(3), of('backward').toFixed(3)];
  };
  console.log(
    table(
      ['', 'active', 'out / in', 'gradient in / out'],
      [RECIPES.reluSmall, RECIPES.reluHe, RECIPES.reluLarge].map(row),
    ),
  );
}

onePath();
explodingPath();
networks();
whyHe();
heading('The report of one network, as gradientFlow() prints it (ReLU, He, 3 layers)');
console.log(String(flowOf(RECIPES.reluHe, SEED, 3)));
