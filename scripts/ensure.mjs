// Runs before `npm start` and `npm test`: installs and builds what is missing or out of date, and else does nothing.
// Works in a fresh clone, so it imports nothing but Node's own modules.
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

process.chdir(fileURLToPath(new URL('..', import.meta.url)));

function npm(...args) {
  const { status } = spawnSync('npm', args, { stdio: 'inherit' });
  if (status !== 0) process.exit(status ?? 1);
}

// The time of the latest change to the files named and to those below the directories named; 0 when there are none.
function changed(...names) {
  const files = names.filter(existsSync).flatMap((name) =>
    statSync(name).isFile()
      ? [name]
      : readdirSync(name, { recursive: true, withFileTypes: true })
          .filter((entry) => entry.isFile())
          .map((entry) => path.join(entry.parentPath, entry.name)),
  );
  return Math.max(0, ...files.map((file) => statSync(file).mtimeMs));
}

if (changed('node_modules/.package-lock.json') < changed('package-lock.json')) npm('ci');
if (changed('build/Release/chainrule.node') < changed('native', 'CMakeLists.txt')) npm('run', 'build:native');
if (changed('dist/index.js') < changed('lib', 'tsconfig.json', 'tsconfig.build.json')) npm('run', 'build:ts');
if (changed('dist/playground/index.html') < changed('playground', 'lib/viz/trace-format.ts'))
  npm('run', 'build:playground');
