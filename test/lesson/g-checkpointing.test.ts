// R59-R64, the lesson's checkpointing: the same gradients for less memory, and how much less it really is.
import { setImmediate } from 'node:timers/promises';
import { describe, expect, it, vi } from 'vitest';
import {
  type CheckpointPlan,
  checkpoint,
  checkpointSequential,
  grad,
  manualSeed,
  memoryStats,
  nn,
  noGrad,
  randn,
  scope,
  type Tensor,
} from '../../lib/index.ts';
import { bitsOf } from '../support.ts';
import { golden, nodesOf, peakOf, report, timeOf } from './lesson.ts';

/** The lesson's block: it widens, bends and narrows. */
class LargeBlock extends nn.Module {
  readonly net: nn.Sequential;

  constructor(width: number, dropout = 0) {
    super();
    this.net = new nn.Sequential(
      new nn.Linear(width, 4 * width),
      new nn.GELU(),
      new nn.Linear(4 * width, width),
      ...(dropout > 0 ? [new nn.Dropout(dropout)] : []),
    );
  }

  override forward(x: Tensor): Tensor {
    return this.net.call(x);
  }
}

/** Bits of the output and of all gradients of one pass. */
function bitsOfPass(block: nn.Module, run: (x: Tensor) => Tensor): string[] {
  manualSeed(11);
  const x = randn([32, 64], { requiresGrad: true });
  block.zeroGrad();
  const y = run(x);
  y.square().mean().backward();
  return [y.detach(), x.grad!, ...[...block.parameters()].map((p) => p.grad!)].map(bitsOf);
}

it('R59: LargeBlock(512) runs on a batch of 32', () => {
  manualSeed(1);
  const block = new LargeBlock(512);
  const x = randn([32, 512]);
  const y = block.call(x);
  expect(y.shape).toEqual([32, 512]);
  expect([...block.namedParameters()].map(([name, p]) => `${name} ${p.shape}`)).toEqual([
    'net.0.weight 2048,512',
    'net.0.bias 2048',
    'net.2.weight 512,2048',
    'net.2.bias 512',
  ]);
  const { weight, bias } = block.net[2] as nn.Linear;
  const hidden = (block.net[0] as nn.Linear).call(x).gelu();
  expect(y.allClose(hidden.matmul(weight.T).add(bias!), { atol: 1e-6 })).toBe(true);
});

/** The warnings of the process while fn runs. */
async function warningsOf(fn: () => void): Promise<string[]> {
  const seen: string[] = [];
  const listen = ({ code, message }: Error & { code?: string }): void => void seen.push(`${code}: ${message}`);
  process.on('warning', listen);
  fn();
  await setImmediate();
  process.off('warning', listen);
  return seen;
}

// First of all: the advice is given once.
describe('R63: a checkpoint that cannot lower the peak', () => {
  const blocks = Array.from({ length: 4 }, () => new LargeBlock(64));
  const each = (h: Tensor, block: nn.Module): Tensor => checkpoint((t: Tensor) => block.call(t), h);
  const all = (h: Tensor): Tensor => blocks.reduce((t, block) => block.call(t), h);

  it('R63: is not one of several', async () => {
    expect(
      await warningsOf(() =>
        blocks
          .reduce(each, randn([32, 64]))
          .sum()
          .backward(),
      ),
    ).toEqual([]);
    const inTwo = (): void =>
      checkpointSequential(blocks, { segments: 2 }, randn([32, 64]))
        .sum()
        .backward();
    expect(await warningsOf(inTwo)).toEqual([]);
  });

  it('R63: is the one round everything, which says so', async () => {
    const advice = /^CHAINRULE_CHECKPOINT_PEAK: checkpoint: .*does not lower the peak.*several parts.*segments/;
    const warnings = await warningsOf(() =>
      checkpoint(all, randn([32, 64]))
        .sum()
        .backward(),
    );
    expect(warnings).toEqual([expect.stringMatching(advice)]);
  });

  it('R63: is a sequence of one segment', async () => {
    const warnings = await warningsOf(() => void checkpointSequential(blocks, { segments: 1 }, randn([32, 64])));
    expect(warnings).toEqual([expect.stringMatching(/^CHAINRULE_CHECKPOINT_PEAK: checkpointSequential: /)]);
  });
});

it('R60: gradients are those without a checkpoint, bit for bit', () => {
  const block = new LargeBlock(64);
  const plain = bitsOfPass(block, (x) => block.call(x));
  const checkpointed = bitsOfPass(block, (x) => checkpoint((h: Tensor) => block.call(h), x));
  expect(checkpointed).toEqual(plain);
  expect(new Set(plain).size).toBe(plain.length);
});

it('R60: it runs once forward, and once more backward', () => {
  const block = new LargeBlock(64);
  let runs = 0;
  const x = randn([4, 64], { requiresGrad: true });
  const y = checkpoint((h: Tensor) => {
    runs++;
    return block.call(h);
  }, x);
  expect(runs).toBe(1);
  y.sum().backward();
  expect(runs).toBe(2);
});

it('R61: dropout falls on the same units again', () => {
  const block = new LargeBlock(64, 0.5);
  const plain = bitsOfPass(block, (x) => block.call(x));
  const checkpointed = bitsOfPass(block, (x) => checkpoint((h: Tensor) => block.call(h), x));
  expect(checkpointed).toEqual(plain);
  // Dropout does fall: half of what comes out is 0.
  const zeros = noGrad(() =>
    (block.net[3] as nn.Dropout)
      .call(randn([1000]))
      .eq(0)
      .to('float32')
      .mean()
      .item(),
  );
  expect(Math.abs(zeros - 0.5)).toBeLessThan(0.1);
});

it('R61: what is drawn around the backward pass is drawn as without it', () => {
  const block = new LargeBlock(64, 0.5);
  const draws = (run: (x: Tensor) => Tensor): string[] => {
    manualSeed(11);
    const y = run(randn([32, 64]));
    const between = bitsOf(randn([4]));
    y.sum().backward();
    return [between, bitsOf(randn([4]))];
  };
  const plain = draws((x) => block.call(x));
  expect(draws((x) => checkpoint((h: Tensor) => block.call(h), x))).toEqual(plain);
  expect(plain[0]).not.toBe(plain[1]);
});

const figures = golden.checkpoint_LargeBlock_512_B32;
const COUNTS = [1, 2, 4, 8, 16];

/** Bytes that the graph below t holds for the backward pass, parameters left out. */
function savedBytes(t: Tensor, parameters: readonly Tensor[]): number {
  const storages = new Map(
    nodesOf(t)
      .flatMap((node) => node.savedTensors)
      .filter((saved) => !parameters.some((p) => p.storage === saved.storage))
      .map((saved) => [saved.storage, saved.nbytes]),
  );
  return [...storages.values()].reduce((sum, bytes) => sum + bytes, 0);
}

/** Saves nothing, and gives the last block a gradient as large as the others get. */
const lossOf = (y: Tensor): Tensor => y.mul(2).sum();
/** The gradient of x alone: those of the weights would outweigh what the graph holds. */
const backwardTo = (x: Tensor, y: Tensor): void => void grad(y, x);

it('R62: memory saved by a checkpoint round each of n blocks, reported with the time it costs', () => {
  manualSeed(2);
  const blocks = Array.from({ length: 16 }, () => new LargeBlock(512));
  const x = randn([32, 512], { requiresGrad: true });
  const parameters = blocks.flatMap((block) => [...block.parameters()]);
  const through = (n: number, step: (block: nn.Module, h: Tensor) => Tensor): Tensor =>
    blocks.slice(0, n).reduce((h: Tensor, block) => step(block, h), x);
  // A scope, as checkpoint has one: the graph alone holds what is between.
  const plain = (n: number): Tensor => lossOf(through(n, (block, h) => scope(() => block.call(h))));
  const saving = (n: number): Tensor => lossOf(through(n, (block, h) => checkpoint((t: Tensor) => block.call(t), h)));

  const rows = COUNTS.map((n) => {
    const saved = savedBytes(plain(n), parameters);
    const [peakPlain, peakSaving] = [plain, saving].map((run) => peakOf(() => backwardTo(x, run(n))));
    const atPeak = saved - (peakPlain! - peakSaving!);
    const [timePlain, timeSaving] = [plain, saving].map((run) => timeOf(() => backwardTo(x, run(n)), 2));
    return {
      blocks: n,
      'plain bytes': saved,
      'checkpointed bytes': atPeak,
      'saved %': Number((100 * (1 - atPeak / saved)).toFixed(1)),
      'extra time %': Math.round(100 * (timeSaving! / timePlain! - 1)),
    };
  });
  report('saved activations at the peak of forward and backward, LargeBlock(512), batch of 32', rows);
  for (const [i, n] of COUNTS.entries()) {
    const { plain_peak_bytes, ckpt_peak_bytes, saved_pct } = figures[String(n)]!;
    expect(rows[i]).toMatchObject({
      'plain bytes': plain_peak_bytes,
      'checkpointed bytes': ckpt_peak_bytes,
      'saved %': saved_pct,
    });
  }
});

it('R62: between forward and backward a checkpoint keeps its input alone', () => {
  const block = new LargeBlock(512);
  const x = randn([32, 512]);
  const [plain, saving] = [
    (t: Tensor) => scope(() => block.call(t)),
    (t: Tensor) => checkpoint((h: Tensor) => block.call(h), t),
  ].map((run) =>
    scope(() => {
      const before = memoryStats().liveBytes;
      const y = run(x);
      return memoryStats().liveBytes - before - y.nbytes + x.nbytes;
    }),
  );
  expect([plain, saving]).toEqual([589_824, 65_536]);
  expect((1 - saving! / plain!).toFixed(3)).toBe('0.889');
});

describe('R64: a budget of bytes', () => {
  const blocks = Array.from({ length: 8 }, () => new LargeBlock(512));
  // No leaf, which would count as a parameter.
  const x = randn([32, 512], { requiresGrad: true }).clone();
  const BLOCK = 589_824;
  const PLAIN = 8 * BLOCK;
  /** One pass within a budget: its plan, the bits of the gradient; what is held after forward, and at most. */
  function pass(maxBytes: number): { plan: CheckpointPlan; bits: string; held: number; peak: number } {
    const plans: CheckpointPlan[] = [];
    const onPlan = (plan: CheckpointPlan): void => void plans.push(plan);
    let bits = '';
    let held = 0;
    const peak = peakOf(() => {
      const before = memoryStats().liveBytes;
      const y = checkpointSequential(blocks, { maxBytes, onPlan }, x);
      held = memoryStats().liveBytes - before - y.nbytes + x.nbytes;
      bits = bitsOf(grad(lossOf(y), x)[0]!);
    });
    expect(plans).toHaveLength(1);
    return { plan: plans[0]!, bits, held, peak };
  }

  it('R64: chooses what to recompute so that it is kept, with the same gradients', () => {
    const plain = pass(1e9);
    expect(plain.plan).toMatchObject({ modules: 8, recomputed: 0, plainBytes: PLAIN, measuredBytes: PLAIN });
    let before = 0;
    for (const maxBytes of [4e6, 3e6, 2e6, 1.1e6]) {
      const { plan, bits, held, peak } = pass(maxBytes);
      expect(bits).toBe(plain.bits);
      expect(plan).toMatchObject({ modules: 8, plainBytes: PLAIN, maxBytes });
      expect(held).toBeLessThanOrEqual(maxBytes);
      expect(plan.measuredBytes).toBeGreaterThanOrEqual(held);
      expect(plan.measuredBytes).toBeLessThanOrEqual(maxBytes);
      expect(plan.measuredBytes).toBe(plan.predictedBytes);
      // A tighter budget recomputes more.
      expect(plan.recomputed).toBeGreaterThan(before);
      before = plan.recomputed;
      // The process holds less by what the plan says, give or take the gradients on the way, less than a block.
      expect(Math.abs(plain.peak - peak - (PLAIN - plan.measuredBytes))).toBeLessThan(BLOCK);
    }
  });

  it('R64: prints the trade', () => {
    const log = vi.spyOn(console, 'log').mockImplementation(() => {});
    checkpointSequential(blocks, { maxBytes: 2_000_000 }, x).sum().backward();
    const lines = log.mock.calls.map(([line]) => String(line));
    log.mockRestore();
    expect(lines).toHaveLength(1);
    expect(lines[0]).toMatch(
      /^checkpointSequential: \d of 8 modules are computed again\. .* 4\.\d\d MiB without.* predicted.* measured, 1\.91 MiB allowed\.$/,
    );
  });

  it('R64: says when no choice fits', () => {
    const plans: CheckpointPlan[] = [];
    checkpointSequential(blocks, { maxBytes: 500_000, onPlan: (plan) => void plans.push(plan) }, x)
      .sum()
      .backward();
    expect(plans[0]).toMatchObject({ recomputed: 8 });
    expect(plans[0]!.predictedBytes).toBeGreaterThan(500_000);
  });
});
