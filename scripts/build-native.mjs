// Builds the addon: with cmake-js where CMake is, else with the node-gyp that npm carries -> build/Release/chainrule.node.
// `--gyp`: with node-gyp in any case -> out/gyp/chainrule.node, beside the other. Imports nothing but Node's own modules.
import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, realpathSync, symlinkSync, utimesSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

process.chdir(fileURLToPath(new URL('..', import.meta.url)));

const CMAKE_JS = 'node_modules/cmake-js/bin/cmake-js';
const NODE_GYP = process.env.npm_config_node_gyp; // set by npm for the scripts that it runs

const has = (command) => spawnSync(command, ['--version'], { stdio: 'ignore' }).status === 0;
const node = (...args) => spawnSync(process.execPath, args, { stdio: 'inherit' }).status === 0;
const fail = (message) => {
  console.error(`chainrule: ${message}`);
  process.exit(1);
};

// node-gyp always builds into ./build, which is cmake-js's: it gets a directory of its own, linked to the sources.
function nodeGyp(target) {
  mkdirSync('out/gyp', { recursive: true });
  for (const source of ['binding.gyp', 'native']) {
    if (!existsSync(`out/gyp/${source}`)) symlinkSync(`../../${source}`, `out/gyp/${source}`);
  }
  // Headers installed beside node spare a download; node-gyp does not look there by itself.
  const prefix = path.resolve(realpathSync(process.execPath), '../..');
  const nodedir = existsSync(path.join(prefix, 'include/node/common.gypi')) ? [`--nodedir=${prefix}`] : [];
  if (!node(NODE_GYP, 'rebuild', '--directory=out/gyp', '--jobs=max', ...nodedir)) return false;
  mkdirSync(path.dirname(target), { recursive: true });
  copyFileSync('out/gyp/build/Release/chainrule.node', target);
  return true;
}

const gypOnly = process.argv.includes('--gyp');
const target = gypOnly ? 'out/gyp/chainrule.node' : 'build/Release/chainrule.node';

const make = has('make');
const canCmake = has('cmake') && (has('ninja') || make) && existsSync(CMAKE_JS);
const canGyp = has('python3') && make && NODE_GYP !== undefined;
if (![process.env.CXX, 'c++', 'g++', 'clang++'].some((compiler) => compiler && has(compiler))) {
  fail('no C++ compiler found. Install g++ 12 or clang 15, or newer.');
}
if (!canGyp && (gypOnly || !canCmake)) {
  fail('no build system found. Install cmake and ninja; or python3 and make, and build through npm.');
}

const built = canCmake && !gypOnly ? node(CMAKE_JS, 'build') : nodeGyp(target);
if (!built) fail('the native build failed: see above.');
// Newer than every source, also than one that did not change the binary: what scripts/ensure.mjs goes by.
utimesSync(target, new Date(), new Date());
