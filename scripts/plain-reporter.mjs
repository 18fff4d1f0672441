// A vitest reporter: closes a run with the one line `N passed, N failed`, which .ci/run adds up.

export default class PlainReporter {
  onTestRunEnd(modules, unhandledErrors) {
    const count = { passed: 0, failed: unhandledErrors.length, skipped: 0 };
    for (const module of modules) {
      const states = [...module.children.allTests()].map((test) => test.result().state);
      for (const state of states) count[state in count ? state : 'skipped']++;
      // A file that cannot be loaded, or whose hook throws, has no failed test of its own.
      if (!module.ok() && !states.includes('failed')) count.failed++;
    }
    console.log(`${count.passed} passed, ${count.failed} failed${count.skipped ? `, ${count.skipped} skipped` : ''}`);
  }
}
