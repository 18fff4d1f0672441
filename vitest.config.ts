// How `npm test` runs: every test file in a process of its own, with gc() for the tests of memory.
import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    setupFiles: ['test/seed.ts'],
    pool: 'forks',
    execArgv: ['--expose-gc'],
    // A hostile size shall be refused, not fill the machine.
    env: { CHAINRULE_MEMORY_LIMIT: String(2 ** 30) },
    testTimeout: 60_000,
    reporters: ['default', './scripts/plain-reporter.mjs'],
  },
});
