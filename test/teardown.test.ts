// Ends of a process and of a worker with work in flight: the right exit code, no hang, no crash. How fast is measured by
// `npm run bench teardown`. Runs the built package.
import { describe, expect, it } from 'vitest';
import { runScript } from './support.ts';

describe.each([1, 2, 3])('with work in flight, time %i', () => {
  it.each([
    ['exit', { code: 3, signal: null }],
    ['throw', { code: 1, signal: null }],
    ['term', { code: null, signal: 'SIGTERM' }],
    ['terminate', { code: 0, signal: null }],
  ])('%s', async (mode, expected) => {
    const outcome = await runScript('test/fixtures/in-flight.mjs', { args: [mode] });
    expect(outcome, outcome.stderr).toMatchObject(expected);
    expect(outcome.stderr).toMatch(mode === 'throw' ? /Error: on purpose/ : /^$/);
    if (mode === 'terminate') expect(JSON.parse(outcome.stdout)).toMatchObject({ code: 1 });
  });
});
