// Writes docs/gradients.md: runs the walkers of the op table and turns their results into the page. Fails where a test
// failed, is missing, or stands behind no cell.
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { BESIDE, claims, files, pageOf } from '../test/op-table.ts';

interface Report {
  readonly testResults: readonly {
    readonly name: string;
    /** Of a file that could not be run. */
    readonly message: string;
    readonly assertionResults: readonly {
      readonly ancestorTitles: readonly string[];
      readonly title: string;
      readonly status: string;
      readonly failureMessages: readonly string[] | null;
    }[];
  }[];
}

process.chdir(fileURLToPath(new URL('..', import.meta.url)));
const REPORT = 'out/gradients.json';

function run(): Report {
  mkdirSync('out', { recursive: true });
  const tests = files.map((file) => `test/${file}.test.ts`);
  const reporters = ['--reporter=./scripts/plain-reporter.mjs', '--reporter=json', `--outputFile.json=${REPORT}`];
  // Its exit code says nothing that the report does not.
  const { error } = spawnSync(process.execPath, ['node_modules/vitest/vitest.mjs', 'run', ...tests, ...reporters], {
    stdio: 'inherit',
  });
  if (error !== undefined) throw error;
  return JSON.parse(readFileSync(REPORT, 'utf8')) as Report;
}

const results = new Map<string, boolean>();
const problems: string[] = [];
const beside = new Set<string>(BESIDE);

for (const { name: file, message, assertionResults } of run().testResults) {
  if (message !== '') problems.push(`${file}: ${message}`);
  for (const { ancestorTitles, title, status, failureMessages } of assertionResults) {
    const check = `${path.basename(file, '.test.ts')}: ${title}`;
    const claim = `${ancestorTitles.join(' ')} > ${check}`;
    results.set(claim, status === 'passed');
    if (status !== 'passed') problems.push(`${claim}: ${status}: ${failureMessages?.join(' ').split('\n')[0]}`);
    if (!claims.has(claim) && !beside.has(check)) problems.push(`${claim}: stands behind no cell of the table`);
  }
}
for (const problem of problems) console.error(problem);
writeFileSync(
  'docs/gradients.md',
  pageOf((claim) => results.get(claim)),
);
console.log(`docs/gradients.md: ${results.size} tests, ${problems.length} problems`);
process.exitCode = problems.length > 0 ? 1 : 0;
