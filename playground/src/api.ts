// What the page asks of its server.
import type { Description, Outcome } from '../../lib/cli/protocol.ts';
import type { Trace } from '../../lib/viz/trace-format.ts';

export type {
  ChoiceInput,
  Description,
  Input,
  MatrixInput,
  NumberInput,
  Outcome,
  Training,
} from '../../lib/cli/protocol.ts';
export type Given = Readonly<Record<string, Description['inputs'][string]['value']>>;

async function ask<T>(url: string, init?: RequestInit): Promise<T> {
  let response: Response;
  try {
    response = await fetch(url, init);
  } catch {
    throw new Error('The server does not answer. Is chainrule playground still running?');
  }
  const body = (await response.json()) as T & { error?: string };
  if (!response.ok) throw new Error(body.error ?? `The server answers ${response.status}.`);
  return body;
}

export const examples = (): Promise<Description[]> => ask('/api/examples');
/** The trace named on the command line. */
export const namedTrace = (): Promise<{ name: string; trace: Trace } | null> => ask('/api/trace');
export const run = (example: string, inputs: Given): Promise<Outcome> =>
  ask('/api/run', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ example, inputs }),
  });
