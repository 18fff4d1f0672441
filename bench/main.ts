// Benchmarks: `npm run bench [name [number]]...`, names as below, all unless told; the number is the part's own.
// Figures are for reading: no test asserts one. Compare within a run: absolute figures drift with the machine.
import { availableParallelism, cpus } from 'node:os';
import { argv } from 'node:process';
import { buildInfo } from '../lib/index.ts';
import * as autograd from './autograd.ts';
import * as eager from './eager.ts';
import * as gemm from './gemm.ts';
import * as memory from './memory.ts';
import * as training from './training.ts';

const PARTS: Record<string, (option?: number) => void | Promise<void>> = {
  eager: eager.run,
  training: training.run,
  gemm: gemm.run,
  memory: memory.run,
  autograd: autograd.run,
};

const { isa, threads, version } = buildInfo();
console.log(
  `${cpus()[0]?.model ?? 'unknown processor'}, ${availableParallelism()} cores, ${isa}, ${threads} threads, ` +
    `Node ${process.version}, chainrule ${version}\n`,
);
const words = argv.slice(2);
const names = words.filter((word) => Number.isNaN(Number(word)));
const unknown = names.find((name) => !(name in PARTS));
if (unknown !== undefined) throw new Error(`no benchmark ${unknown}. Expected ${Object.keys(PARTS).join(', ')}.`);
for (const name of names.length > 0 ? names : Object.keys(PARTS)) {
  const option = Number(words[words.indexOf(name) + 1]);
  console.log(`---- ${name} ----`);
  await PARTS[name]!(Number.isNaN(option) ? undefined : option);
}
