// Fusion and folding: which commands of a compiled program run together, which run once; and that random programs have
// the bits of ordinary ones whatever was made of them.
import { describe, expect, it } from 'vitest';
import {
  add,
  compile,
  exp,
  full,
  gt,
  matmul,
  mseLoss,
  mul,
  nn,
  noGrad,
  ones,
  optim,
  randn,
  relu,
  scope,
  square,
  sub,
  sum,
  type Tensor,
  tanh,
  transpose,
  where,
  zeros,
} from '../lib/index.ts';
import { mulberry32 } from './random.ts';
import { bitsOf, trainingStep } from './support.ts';

/** As many elements as it takes for commands to be fused. */
const SIDE = 200;
const plannedLines = (compiled: { explain(): { programs: { planned: string }[] } }): string[] =>
  compiled.explain().programs[0]!.planned.split('\n');
/** The op of each line, `+` before those that run together with the one before. */
const opsOf = (compiled: Parameters<typeof plannedLines>[0]): string =>
  plannedLines(compiled)
    .map(
      (line) =>
        `${line.startsWith('  ') ? '+' : line.startsWith('once: ') ? 'once ' : ''}${line.split(' = ')[1]!.split(' ')[0]}`,
    )
    .join(' ');

function expectFused(fn: (...tensors: Tensor[]) => Tensor, tensors: Tensor[], ops: string): void {
  const compiled = compile(fn);
  for (let i = 0; i < 2; i++) expect(bitsOf(compiled(...tensors))).toBe(bitsOf(fn(...tensors)));
  expect(opsOf(compiled)).toBe(ops);
}

const square200 = (): Tensor => randn([SIDE, SIDE]);

describe('fusion', () => {
  it('runs elementwise ops together of which one reads what another writes', () => {
    expectFused((x) => tanh(x.mul(2).add(1)).mul(x), [square200()], 'mul +add +tanh +mul');
  });

  it('takes in broadcast inputs, conditions and other dtypes', () => {
    expectFused(
      (x, row, column) => where(gt(x.add(row), 0), x.mul(column), 0.5),
      [square200(), randn([SIDE]), randn([SIDE, 1])],
      'add +gt mul +where',
    );
    expectFused((x) => x.mul(2).to('float64').add(1), [square200()], 'mul +copy +add');
  });

  it('moves an op past others that have nothing to do with it', () => {
    expectFused(
      (x, y) => {
        const doubled = x.mul(2);
        const total = sum(y);
        return relu(doubled).add(total);
      },
      [square200(), square200()],
      'mul +relu sum add',
    );
  });

  it('leaves alone small tensors, and reads of another order or of a part', () => {
    expectFused((x) => exp(x.mul(2)), [randn([10, 10])], 'mul exp');
    expectFused((x) => add(x.mul(2), 1).add(transpose(x.mul(2).add(1), 0, 1)), [square200()], 'mul +add mul +add add');
    expectFused((x) => exp(x.mul(2).slice(0, 0, SIDE - 1)), [square200()], 'mul exp');
    expectFused((x) => x.mul(2).slice(0, 0, 1).add(x), [square200()], 'mul add');
  });

  it('keeps the order of changes in place', () => {
    expectFused(
      (x) => {
        const y = x.mul(2);
        const before = y.add(1);
        y.add_(5);
        return before.mul(y);
      },
      [square200()],
      'mul +add +add +mul',
    );
  });

  it('runs no more than eight together', () => {
    expectFused(
      (x) => {
        let y = x;
        for (let i = 0; i < 10; i++) y = y.mul(1.25);
        return y;
      },
      [square200()],
      `mul ${'+mul '.repeat(7)}mul +mul`,
    );
  });

  it('keeps apart what a chain needs at once', () => {
    expectFused(
      (x, w) => {
        const z = relu(x.mul(3));
        return matmul(z, w).add(sum(square(z)));
      },
      [square200(), square200()],
      'mul +relu +square matmul sum add',
    );
  });
});

describe('folding', () => {
  it('computes once what numbers alone give', () => {
    const model = new nn.Linear(4, 2);
    const optimizer = new optim.SGD(model.parameters(), { lr: 0.1 });
    const step = compile(trainingStep(optimizer, (x, y) => mseLoss(model.call(x), y)));
    step(randn([3, 4]), randn([3, 2]));
    expect(opsOf(step).startsWith('once copy once mul matmul')).toBe(true);
  });

  it('leaves alone what is changed, returned, or large', () => {
    const changed = compile((x: Tensor) => {
      const c = zeros([2]);
      c.add_(1);
      return c.mul(x);
    });
    for (let i = 0; i < 3; i++) expect(changed(ones([2])).toArray()).toEqual([1, 1]);
    expect(opsOf(changed)).toBe('copy add mul');
    const returned = compile((x: Tensor) => ({ c: full([2], 3), y: x.mul(2) }));
    const first = returned(ones([2])).c;
    noGrad(() => first.add_(1));
    expect(returned(ones([2])).c.toArray()).toEqual([3, 3]);
    expect(opsOf(returned)).toBe('copy mul');
    expectFused((x) => x.add(ones([5, 5])), [randn([5, 5])], 'copy add');
  });

  it('keeps what it has computed: nothing lies in its place', () => {
    expectFused(
      (x) => {
        const two = ones([4]).mul(2);
        return two.sub(x).mul(x);
      },
      [randn([4])],
      'once copy once mul sub mul',
    );
  });
});

describe('random programs', () => {
  /** One of many programs over three arguments, whose ops and operands `random` draws: the same for the same seed. */
  function program(seed: number): (...tensors: Tensor[]) => Tensor[] {
    return (...tensors) => {
      const random = mulberry32(seed);
      const below = (n: number): number => Math.floor(random() * n);
      const matrices = tensors.slice(0, 2);
      const row = tensors[2]!;
      const any = (): Tensor => matrices[below(matrices.length)]!;
      const made = (): Tensor | undefined => matrices[2 + below(matrices.length - 2)];
      const other = (): Tensor | number =>
        [
          any,
          any,
          (): Tensor => row,
          (): number => below(5) - 2,
          (): Tensor => sum(any()),
          (): Tensor => transpose(any(), 0, 1),
        ][below(6)]!();
      for (let i = 0; i < 14; i++) {
        const kind = below(10);
        if (kind === 0) matrices.push(matmul(any(), any()).mul(1e-3));
        else if (kind === 1) made()?.add_(other());
        else if (kind === 2) matrices.push(where(gt(any(), other()), any(), other()));
        else if (kind === 3) matrices.push(add(any(), any().to('float64').mul(3).to('float32')));
        else if (kind < 7) matrices.push([tanh, relu, square, exp][below(4)]!(tanh(any())));
        else matrices.push([add, sub, mul][below(3)]!(any(), other()));
        if (below(3) === 0) matrices.splice(2 + below(Math.max(1, matrices.length - 2)), 1);
      }
      return matrices.slice(2);
    };
  }

  it.each(Array.from({ length: 12 }, (_, i) => i))('have the bits of ordinary ones: seeds from %i', (block) => {
    for (let seed = 20 * block; seed < 20 * (block + 1); seed++) {
      scope(() => {
        const fn = (...tensors: Tensor[]): Tensor[] => noGrad(() => program(seed)(...tensors));
        const compiled = compile(fn);
        for (let call = 0; call < 2; call++) {
          const tensors = [square200(), square200(), randn([SIDE])];
          expect(compiled(...tensors).map(bitsOf), `seed ${seed}`).toEqual(fn(...tensors).map(bitsOf));
        }
      });
    }
  });
});
