// Bench layer: the libraries that we are measured against: which are here, which are not, and how to get those. Installs
// nothing unless told. Run: `npm run bench:rivals`.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { buildPrograms, isBuilt, Program } from './native.ts';
import type { Options } from './options.ts';
import { PyTorch } from './peers/pytorch.ts';

export interface Matmul {
  /** As results name it. */
  name: string;
  /** In out/bench, without its prefix. */
  program: string;
  args?: readonly string[];
  environment?: Readonly<Record<string, string>>;
  /** What Debian calls it. */
  packages: string;
}

const openblas = (core: string): Matmul => ({
  name: `OpenBLAS ${core}`,
  program: 'gemm_openblas',
  // Its own choice can be far off: on processors that it does not know it takes kernels of 2004.
  environment: { OPENBLAS_CORETYPE: core },
  packages: 'libopenblas-pthread-dev',
});

export const MATMUL_RIVALS: readonly Matmul[] = [
  { name: 'oneDNN sgemm', program: 'gemm_dnnl', args: ['sgemm'], packages: 'libdnnl-dev' },
  { name: 'oneDNN matmul', program: 'gemm_dnnl', packages: 'libdnnl-dev' },
  openblas('SkylakeX'),
  openblas('Haswell'),
  openblas('SapphireRapids'),
  { name: 'BLIS', program: 'gemm_blis', packages: 'libblis-openmp-dev' },
  { name: 'libxsmm', program: 'gemm_libxsmm', packages: 'libxsmm-dev' },
  { name: 'Eigen', program: 'gemm_eigen', packages: 'libeigen3-dev' },
];

export interface Started extends Matmul {
  process: Program;
}

export async function startMatmulRivals(): Promise<Started[]> {
  const started: Started[] = [];
  for (const rival of MATMUL_RIVALS) {
    // Its workers must be there when they are wanted: active waiting is every OpenMP library's best case.
    const environment = { OMP_WAIT_POLICY: 'active', ...rival.environment };
    const process = await Program.start(rival.program, rival.args, environment);
    if (process) started.push({ ...rival, process });
  }
  return started;
}

const SCRIPTS = fileURLToPath(new URL('./rivals/', import.meta.url));

/** The packages of bench/rivals that are not there. */
function missingPackages(): string[] {
  const { dependencies } = JSON.parse(readFileSync(`${SCRIPTS}package.json`, 'utf8')) as {
    dependencies: Record<string, string>;
  };
  const require = createRequire(`${SCRIPTS}package.json`);
  return Object.keys(dependencies).filter((name) => {
    const places = require.resolve.paths(name) ?? [];
    return !places.some((place) => existsSync(`${place}/${name}/package.json`));
  });
}

export async function run({ install }: Options): Promise<void> {
  buildPrograms();
  const missing = new Set(MATMUL_RIVALS.filter(({ program }) => !isBuilt(program)).map(({ packages }) => packages));
  for (const { name, process } of await startMatmulRivals()) {
    console.log(`${name}: ${process.about}`);
    process.stop();
  }
  const torch = await PyTorch.start({ again: true });
  torch?.stop();
  if (!torch) missing.add('python3-torch');
  // Without their install scripts, which may download: what they bring is all that they need.
  if (install) spawnSync('npm', ['ci', '--ignore-scripts'], { cwd: SCRIPTS, stdio: 'inherit' });
  const packages = missingPackages();
  if (packages.length > 0) {
    console.log(`missing: ${packages.join(', ')}; to have them: npm run bench:rivals -- --install`);
  }
  if (missing.size > 0) console.log(`missing; to have them: apt-get install ${[...missing].join(' ')}`);
}
