// Where in the user's program a call came from: for errors that tell of two places.
import { fileURLToPath } from 'node:url';

const LIBRARY = fileURLToPath(new URL('.', import.meta.url));
const DEPTH = 40;

/** The innermost frame outside the library, as `name (file:line:column)`; empty when there is none. */
export function callSite(): string {
  const { stackTraceLimit } = Error;
  Error.stackTraceLimit = DEPTH;
  const { stack = '' } = new Error('call site');
  Error.stackTraceLimit = stackTraceLimit;
  const frame = stack
    .split('\n')
    .slice(1)
    .map((line) =>
      line
        .trim()
        .replaceAll('file://', '')
        .replace(/^at /, '')
        .replace(/^<anonymous> \((.*)\)$/, '$1'),
    )
    .find((line) => /:\d+:\d+\)?$/.test(line) && !line.includes(LIBRARY) && !line.includes('node:'));
  return frame ?? '';
}
