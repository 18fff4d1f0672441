// Keeps what a deep network saves for its backward pass on disk instead of in memory: npx tsx examples/offload/main.ts
// Each saved tensor becomes a file in a temporary directory, and is read once, when the backward pass comes to it. The
// gradients are the same bits; memory holds a layer or two instead of all of them. Parameters stay where they are.
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  io,
  keep,
  manualSeed,
  memoryStats,
  nn,
  randn,
  resetPeakMemory,
  savedTensorsHooks,
  scope,
  type Tensor,
} from '../../lib/index.ts';

const LAYERS = 12;
const WIDTH = 128;
const BATCH = 1024;

type Packed = Tensor | string;

/** Runs fn; what its ops save goes to files in `directory`, but for `resident`, which is in memory anyway. */
function offload<T>(directory: string, resident: ReadonlySet<Tensor>, fn: () => T): T {
  let count = 0;
  // One value may be saved by two ops, as by an activation and the layer after it: it is written once.
  const written = new WeakMap<object, string>();
  const pack = (t: Tensor): Packed => {
    if (resident.has(t)) return t;
    const known = written.get(t);
    if (known !== undefined) return known;
    const path = join(directory, `${count++}.safetensors`);
    io.saveSafetensors(path, { saved: t });
    written.set(t, path);
    return path;
  };
  const unpack = (packed: Packed): Tensor =>
    typeof packed === 'string' ? io.loadSafetensors(packed).tensors.get('saved')! : packed;
  return savedTensorsHooks(pack, unpack, fn);
}

/** The model's loss. What a layer has passed on is let go: only the graph keeps what it saved of it. */
function lossOf(model: nn.Sequential, x: Tensor): Tensor {
  let y = x;
  for (const layer of model) {
    const next = layer.call(y);
    if (y !== x) y.dispose();
    y = next;
  }
  return y.square().mean();
}

interface Measured {
  gradients: Tensor[];
  /** Live between the passes, and the peak of both, beyond what was there before. */
  held: number;
  peak: number;
}

function measure(model: nn.Sequential, x: Tensor, run: (forward: () => Tensor) => Tensor): Measured {
  model.zeroGrad();
  const before = memoryStats().liveBytes;
  resetPeakMemory();
  const held = scope(() => {
    const loss = run(() => scope(() => lossOf(model, x)));
    const bytes = memoryStats().liveBytes - before;
    loss.backward();
    return bytes;
  });
  return { gradients: [...model.parameters()].map((p) => keep(p.grad!)), held, peak: memoryStats().peakBytes - before };
}

const sameBits = (a: Tensor, b: Tensor): boolean =>
  Buffer.compare(Buffer.from(a.toTypedArray().buffer), Buffer.from(b.toTypedArray().buffer)) === 0;
const mebibytes = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(2).padStart(6)} MiB`;

manualSeed(1);
const model = new nn.Sequential(
  ...Array.from({ length: LAYERS }, () => [new nn.Linear(WIDTH, WIDTH), new nn.Tanh()]).flat(),
);
const x = randn([BATCH, WIDTH]);
const directory = mkdtempSync(join(tmpdir(), 'chainrule-offload-'));
try {
  const inMemory = measure(model, x, (forward) => forward());
  const resident = new Set<Tensor>([x, ...model.parameters()]);
  const onDisk = measure(model, x, (forward) => offload(directory, resident, forward));
  const same = inMemory.gradients.every((g, i) => sameBits(g, onDisk.gradients[i]!));
  console.log(`between the passes: ${mebibytes(inMemory.held)} in memory, ${mebibytes(onDisk.held)} offloaded`);
  console.log(`at the peak:        ${mebibytes(inMemory.peak)} in memory, ${mebibytes(onDisk.peak)} offloaded`);
  console.log(`files written: ${readdirSync(directory).length}; same bits: ${same}`);
} finally {
  rmSync(directory, { recursive: true });
  console.log(`files left: ${existsSync(directory) ? 'some' : 0}`);
}
