// docs/gradients.md: which checks of the walkers (test/ops.*.test.ts) stand behind which of its cells, and the page as
// their results make it. Runs no check: scripts/build-gradients.ts does.
import * as attention from '../lib/ops/attention.ts';
import * as cast from '../lib/ops/cast.ts';
import * as compare from '../lib/ops/compare.ts';
import * as convolution from '../lib/ops/convolution.ts';
import * as create from '../lib/ops/create.ts';
import * as dropout from '../lib/ops/dropout.ts';
import * as einsum from '../lib/ops/einsum.ts';
import * as elementwise from '../lib/ops/elementwise.ts';
import * as indexing from '../lib/ops/indexing.ts';
import * as join from '../lib/ops/join.ts';
import * as losses from '../lib/ops/losses.ts';
import * as matmul from '../lib/ops/matmul.ts';
import * as normalization from '../lib/ops/normalization.ts';
import * as parts from '../lib/ops/parts.ts';
import * as pooling from '../lib/ops/pooling.ts';
import * as random from '../lib/ops/random.ts';
import * as reduce from '../lib/ops/reduce.ts';
import * as softmax from '../lib/ops/softmax.ts';
import * as sort from '../lib/ops/sort.ts';
import * as views from '../lib/ops/views.ts';
import { type Args, isFloatInput, isVariable, ndsIn, samples } from './helpers.ts';
import { ALL, type DType, type Row, samplesOf } from './op-samples/row.ts';
import { opSamples } from './op-samples.ts';

// ---- what rows declare --------------------------------------------------------------------------------------------------
/** The dtypes that a sample is run in: of its float inputs; without any, of the result. */
export const dtypesOf = (row: Row, args: Args): readonly DType[] =>
  ndsIn(args).some(isFloatInput) ? (row.dtypes ?? ALL) : [row.result?.('float32', ...args) ?? 'float32'];
/** All that a row's samples are run in. */
export function dtypesOfRow(name: string, row: Row): DType[] {
  const run = new Set(samples(name, row).flatMap((args) => dtypesOf(row, args)));
  return ALL.filter((dtype) => run.has(dtype));
}

interface Traits {
  /** The most tensors that a sample has. */
  readonly inputs: number;
  /** Whether some sample has a tensor to differentiate for. */
  readonly variables: boolean;
  readonly gradient: 'full' | 'zero' | 'none';
  /** Whether the row states gradients. */
  readonly stated: boolean;
  /** A loop over examples gives something to compare with: not where chance decides, and not for truth values. */
  readonly mapped: boolean;
  readonly dtypes: readonly DType[];
  /** Whether special values are visited. */
  readonly special: boolean;
}

function traitsOf(name: string, row: Row): Traits {
  const all = samples(name, row).map(ndsIn);
  const inputs = Math.max(...all.map((nds) => nds.length));
  return {
    inputs,
    variables: all.flat().some(isVariable),
    gradient: row.gradient ?? 'full',
    stated: row.gradients !== undefined && samplesOf(name, row.gradients).length > 0,
    mapped: inputs > 0 && row.reference !== null && !Object.hasOwn(compare, name),
    dtypes: dtypesOfRow(name, row),
    special: row.special !== undefined,
  };
}

const traits = new Map(Object.entries(opSamples).map(([name, row]) => [name, traitsOf(name, row)]));

const STATED = 'ops.gradients: has the gradients that its row states';
/** float is to('float32'): its gradients are seen there, where differences in float64 show more than rounding. */
const SAME_GRADIENT: Readonly<Record<string, string>> = { float: 'to' };

// ---- columns ------------------------------------------------------------------------------------------------------------
/** `file: title` of a test, whose file is test/<file>.test.ts and which stands under the op's name. */
export type Check = `ops.${string}: ${string}`;
type Mark = '✓' | '0' | '–';

interface Column {
  readonly title: string;
  /** What the cell shows when its checks pass. */
  readonly mark: (traits: Traits) => Mark;
  readonly checks: (traits: Traits) => readonly Check[];
  readonly ofGradients?: true;
}

const VIEWS = ['transposed', 'every second element', 'behind an offset', 'expanded'];
const LAYOUT_OF_GRADIENTS = 'has the same gradient for inputs and gradients that are';
const GRADIENT_ZERO: Check = 'ops.gradcheck: passes gradcheck with a gradient of 0 everywhere';

const has = (yes: boolean): Mark => (yes ? '✓' : '–');
const markOfGradient = ({ gradient }: Traits): Mark => ({ full: '✓', zero: '0', none: '–' })[gradient] as Mark;
const when = (holds: boolean, ...checks: Check[]): Check[] => (holds ? checks : []);

const forward = (dtype: DType, { special, dtypes }: Traits): Check[] => [
  ...when(dtypes.includes(dtype), `ops.forward: is as its reference in ${dtype}`),
  ...when(
    special && (dtype === 'float32' || dtype === 'float64'),
    `ops.special: treats special values of ${dtype} as stated, in every lane`,
  ),
];
const ofDtype = (dtype: DType): Column => ({
  title: dtype,
  mark: ({ dtypes }) => has(dtypes.includes(dtype)),
  checks: (own) => forward(dtype, own),
});

const COLUMNS: readonly Column[] = [
  { title: 'forward', mark: () => '✓', checks: (own) => ALL.flatMap((dtype) => forward(dtype, own)) },
  {
    title: 'vjp',
    ofGradients: true,
    mark: markOfGradient,
    checks: ({ gradient, stated, variables }) => [
      ...when(gradient === 'none' && variables, 'ops.gradients: never requires grad'),
      ...when(
        gradient !== 'none',
        'ops.gradients: has the gradient that differences show',
        'ops.gradients: has empty gradients for empty inputs',
        'ops.gradients: has one gradient, recorded or not',
      ),
      ...when(gradient !== 'none' && stated, STATED),
      ...when(gradient === 'full', 'ops.gradcheck: passes gradcheck, and shows something'),
      ...when(gradient === 'zero', GRADIENT_ZERO),
    ],
  },
  {
    title: 'jvp',
    ofGradients: true,
    mark: markOfGradient,
    checks: ({ gradient }) =>
      when(gradient !== 'none', 'ops.forward-mode: has the derivative forward that it has backward'),
  },
  {
    title: 'second order',
    ofGradients: true,
    mark: markOfGradient,
    checks: ({ gradient }) => [
      ...when(
        gradient === 'full',
        'ops.gradients: has second derivatives',
        'ops.gradcheck: passes gradgradcheck, and shows something',
        'ops.forward-mode: has second derivatives forward over reverse and reverse over forward',
      ),
      ...when(gradient === 'zero', GRADIENT_ZERO),
    ],
  },
  {
    title: 'vmap',
    mark: ({ mapped }) => has(mapped),
    checks: ({ mapped, gradient }) => [
      ...when(mapped, 'ops.vmap: gives for a batch what a loop gives'),
      ...when(mapped && gradient === 'full', 'ops.vmap: has gradients for each example'),
    ],
  },
  ofDtype('float32'),
  ofDtype('float64'),
  ofDtype('bfloat16'),
  {
    title: 'views',
    mark: ({ inputs }) => has(inputs > 0),
    checks: ({ inputs, gradient }) =>
      VIEWS.flatMap((view) => [
        ...when(inputs > 0, `ops.views: takes inputs that are ${view}`),
        ...when(inputs > 0 && gradient !== 'none', `ops.views: ${LAYOUT_OF_GRADIENTS} ${view}`),
      ]),
  },
];

/** Tests of those files that stand behind no cell. */
export const BESIDE: readonly Check[] = ['int32', 'uint8', 'bool'].map(
  (dtype) => `ops.special: cuts and saturates floats to ${dtype}, NaN to 0` as const,
);

/** The claims, `op > check`, that have to hold for a cell. */
function claimsOf(name: string, { title, ofGradients, checks }: Column): string[] {
  const of = (ofGradients && SAME_GRADIENT[name]) ?? name;
  const all = checks(traits.get(of)!).map((check) => `${of} > ${check}`);
  return of !== name && title === 'vjp' ? [...all, `${name} > ${STATED}`] : all;
}

const names = Object.keys(opSamples);
/** Those of all cells. */
export const claims: ReadonlySet<string> = new Set(
  names.flatMap((name) => COLUMNS.flatMap((column) => claimsOf(name, column))),
);
/** The walkers that are asked. */
export const files: readonly string[] = [...new Set([...claims].map((claim) => claim.replace(/.* > (.*?): .*/, '$1')))];

// ---- the page -------------------------------------------------------------------------------------------------------------
/** Sections, with the files that define their ops. */
const FAMILIES: readonly { title: string; from: readonly object[]; only?: (own: Traits) => boolean }[] = [
  { title: 'One input', from: [elementwise], only: ({ inputs }) => inputs === 1 },
  { title: 'Several inputs', from: [elementwise], only: ({ inputs }) => inputs > 1 },
  { title: 'Reductions', from: [reduce, softmax] },
  { title: 'Products', from: [matmul, einsum] },
  { title: 'Shape', from: [views, parts, join, indexing, sort] },
  { title: 'Layers', from: [normalization, convolution, pooling, dropout, attention] },
  { title: 'Losses', from: [losses] },
  { title: 'Creation and chance', from: [create, random] },
  { title: 'Conversion and comparison', from: [cast, compare] },
];

/** Whether a check of an op has passed; undefined when it has not been run. */
export type Verdict = (claim: string) => boolean | undefined;

/** @throws Error for a check that has not been run, and for a cell that has none */
function cellOf(name: string, column: Column, verdict: Verdict): Mark | '✗' {
  const mark = column.mark(traits.get(name)!);
  const verdicts = claimsOf(name, column).map((claim) => {
    const passed = verdict(claim);
    if (passed === undefined) throw new Error(`${name}, ${column.title}: no result of "${claim}"`);
    return passed;
  });
  if (mark !== '–' && verdicts.length === 0) throw new Error(`${name}, ${column.title}: no check stands for the cell`);
  return verdicts.includes(false) ? '✗' : mark;
}

const section = (title: string, ops: readonly string[], verdict: Verdict): string[] => [
  `## ${title}`,
  '',
  `| op | ${COLUMNS.map((column) => column.title).join(' | ')} |`,
  `|---|${COLUMNS.map(() => ':-:').join('|')}|`,
  ...ops.map((name) => `| \`${name}\` | ${COLUMNS.map((column) => cellOf(name, column, verdict)).join(' | ')} |`),
  '',
];

/** The page. @throws Error for a result that is missing, and for an op that stands in no section, or in two */
export function pageOf(verdict: Verdict): string {
  const sections = FAMILIES.map(({ title, from, only }) => ({
    title,
    ops: names.filter((name) => from.some((file) => Object.hasOwn(file, name)) && (only?.(traits.get(name)!) ?? true)),
  }));
  for (const name of names) {
    const places = sections.filter(({ ops }) => ops.includes(name)).length;
    if (places !== 1) throw new Error(`${name}: in ${places} sections of the page; see FAMILIES in test/op-table.ts`);
  }
  const tables = sections.flatMap(({ title, ops }) => section(title, ops, verdict));
  return `${[intro(names.length), ...tables].join('\n').trimEnd()}\n`;
}

const intro = (ops: number): string => `# What is checked of every op

Written by \`npm run docs:gradients\` from what the tests find, never by hand: ${ops} ops, ${claims.size} tests. Each runs over the
samples of its op's row in \`test/op-samples/\`, the small ones where derivatives are concerned. \`test/op-table.ts\` says
which tests stand behind which cell; a test that is missing is an error, one that fails a ✗.

| column | what is compared | within |
|---|---|---|
| forward | values in every dtype with a reference on plain numbers, special values too | the row's \`tolerance\` |
| vjp | ⟨Jᵀu, v⟩ with a central difference along v, for every input | 1e-6 of the gradient + 1e-7 |
|  | the whole Jacobian with differences (\`gradcheck\`) | 1e-3 + 1e-5 |
|  | the fused gradient with the recorded one; gradients stated at kinks | 1e-13; 1e-12 |
| jvp | forward mode with reverse mode, ⟨w, Jv⟩ with ⟨Jᵀw, v⟩ | 1e-11 |
| second order | the gradient's gradient with differences, and by \`gradgradcheck\` | as vjp |
|  | forward over reverse with reverse over forward | 1e-11 |
| vmap | a batch with a loop: values, gradients through it, gradients inside it | 1e-12 |
| float32 … | forward for inputs of the dtype; results, where no input is floating | as forward |
| views | values and gradients for transposed, stepped, offset and expanded inputs | every bit |

- **✓** passed.
- **0** passed, and the gradient is zero everywhere.
- **–** does not apply. Gradients: the result never requires grad, which is checked too. vmap and views: no tensor goes
  in; under vmap random ops draw other numbers for each example, and truth values have no batch. Dtypes: refused, as
  \`test/ops.errors.test.ts\` checks, or not asked for by a sample.

Derivatives are compared in float64. \`float\` is \`to('float32')\`, whose gradient columns it shares: what it rounds away
hides the differences. Gradients where the derivative jumps are listed in
[numerics.md](numerics.md#gradients-at-kinks). In-place ops give the bits and gradients of their twins here
(\`test/ops.in-place.test.ts\`).
`;
