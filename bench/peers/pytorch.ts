// Bench layer: PyTorch, as Debian's python3-torch brings it, in a process of its own. Its products are as fast as its
// BLAS, and that as the kernels it takes for this processor: the first run tries all that are installed.
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { Sampling, Timing } from '../measure.ts';
import { load, save } from '../results.ts';
import { Peer } from './process.ts';

const PYTHON = '/usr/bin/python3';
const SCRIPT = fileURLToPath(new URL('./pytorch.py', import.meta.url));
const LIBRARIES = '/usr/lib/x86_64-linux-gnu';

type Environment = Readonly<Record<string, string>>;

/** Every BLAS that is installed, with the kernels that fit machines with wide registers. */
function settings(): Environment[] {
  const found: Environment[] = [{}];
  for (const openblas of ['openblas-pthread', 'openblas-openmp']) {
    const LD_LIBRARY_PATH = `${LIBRARIES}/${openblas}`;
    if (!existsSync(LD_LIBRARY_PATH)) continue;
    for (const core of ['SkylakeX', 'Haswell', 'SapphireRapids']) {
      found.push({ LD_LIBRARY_PATH, OPENBLAS_CORETYPE: core });
    }
  }
  if (existsSync(`${LIBRARIES}/blis-openmp`)) found.push({ LD_LIBRARY_PATH: `${LIBRARIES}/blis-openmp` });
  return found;
}

/** What settings are judged by: products dominate it. */
const JUDGED = '784-512-256-10 128 relu ce sgd';

/** The fastest setting, on one thread and on two. */
async function tryAll(): Promise<Environment | undefined> {
  let best: { seconds: number; setting: Environment } | undefined;
  for (const setting of settings()) {
    const torch = await PyTorch.startWith(setting);
    if (!torch) return undefined;
    let seconds = 0;
    for (const threads of [1, 2]) {
      seconds += threads * (await torch.measure(JUDGED, threads, { warmup: 0.1, seconds: 0.3 })).best;
    }
    torch.stop();
    if (!best || seconds < best.seconds) best = { seconds, setting };
  }
  return best?.setting;
}

export class PyTorch {
  readonly #peer: Peer;

  private constructor(peer: Peer) {
    this.#peer = peer;
  }

  get about(): string {
    return this.#peer.about;
  }

  static async startWith(setting: Environment): Promise<PyTorch | undefined> {
    const peer = await Peer.start(PYTHON, [SCRIPT], setting);
    return peer && new PyTorch(peer);
  }

  /** At its best setting. Undefined, after saying so, when it is not installed. */
  static async start({ again = false } = {}): Promise<PyTorch | undefined> {
    const known = again ? undefined : load<{ setting: Environment }>('pytorch')?.setting;
    const setting = known ?? (await tryAll());
    const torch = setting && (await PyTorch.startWith(setting));
    if (!torch) {
      console.log(
        `PyTorch: not installed for ${PYTHON} (package python3-torch), so there is nothing to compare with.\n`,
      );
      return undefined;
    }
    if (!known) save('pytorch', { setting });
    const { version, blas } = JSON.parse(torch.about) as { version: string; blas: string };
    const words = Object.entries(setting).map(([name, value]) => `${name}=${value}`);
    console.log(`PyTorch ${version} over ${blas}${words.length > 0 ? `, at its best with ${words.join(' ')}` : ''}\n`);
    return torch;
  }

  async measure(name: string, threads: number, { warmup = 0.2, seconds = 0.5 }: Sampling = {}): Promise<Timing> {
    return JSON.parse(await this.#peer.ask(JSON.stringify({ case: name, threads, warmup, seconds }))) as Timing;
  }

  stop(): void {
    this.#peer.stop();
  }
}
