// Benchmarks: `npm run bench [part]... [number] [--threads 1,2] [--only WORDS] [--seconds S] [--rivals WORDS]`, all parts
// unless told. --only takes cases that contain each of its words, such as '512 nt'. Figures are for reading: no test
// asserts one. Compare within a run: absolute figures drift with the machine.
import { argv } from 'node:process';
import * as autograd from './autograd.ts';
import * as eager from './eager.ts';
import * as elementwise from './elementwise.ts';
import * as gemm from './gemm.ts';
import * as javascript from './javascript.ts';
import * as limits from './limits.ts';
import * as memory from './memory.ts';
import * as optimizers from './optimizers.ts';
import { type Options, readOptions } from './options.ts';
import * as playground from './playground.ts';
import * as pool from './pool.ts';
import * as reductions from './reductions.ts';
import { machine } from './results.ts';
import * as rivals from './rivals.ts';
import * as service from './service.ts';
import * as teardown from './teardown.ts';
import * as training from './training.ts';

const PARTS: Record<string, (options: Options) => void | Promise<void>> = {
  limits: limits.run,
  pool: pool.run,
  gemm: gemm.run,
  elementwise: elementwise.run,
  reductions: reductions.run,
  optimizers: optimizers.run,
  eager: eager.run,
  training: training.run,
  javascript: javascript.run,
  memory: memory.run,
  autograd: autograd.run,
  teardown: teardown.run,
  service: service.run,
  playground: playground.run,
  rivals: rivals.run,
};

const { processor, cores, isa, node, version } = machine();
console.log(`${processor}, ${cores} cores, ${isa}, Node ${node}, chainrule ${version}\n`);
const { parts, options } = readOptions(argv.slice(2));
const unknown = parts.find((part) => !(part in PARTS));
if (unknown !== undefined) throw new Error(`no benchmark ${unknown}. Expected ${Object.keys(PARTS).join(', ')}.`);
for (const part of parts.length > 0 ? parts : Object.keys(PARTS)) {
  console.log(`---- ${part} ----`);
  await PARTS[part]!(options);
}
