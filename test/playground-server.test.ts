// The server of the playground and the program that starts it, without a browser.
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { type IncomingHttpHeaders, request, type Server } from 'node:http';
import { connect } from 'node:net';
import { networkInterfaces, tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { describeExamples, runExample } from '../lib/cli/examples.ts';
import type { MatrixInput, Outcome } from '../lib/cli/protocol.ts';
import { serve } from '../lib/cli/server.ts';
import { ArgumentError, parseTrace, type Trace, type TraceStep } from '../lib/index.ts';
import { golden, TIGHT } from './lesson/lesson.ts';
import { expectClose, runScript, thrownBy } from './support.ts';

interface Reply {
  status: number;
  headers: IncomingHttpHeaders;
  body: string;
}

let server: Server;
let port: number;
let address: string;
const directory = mkdtempSync(path.join(tmpdir(), 'playground-'));
const children: ChildProcess[] = [];
beforeAll(async () => {
  ({ server, address } = await serve({ port: 0, trace: null }));
  port = Number(new URL(address).port);
});
afterAll(() => {
  server.close();
  for (const child of children) child.kill('SIGKILL');
  rmSync(directory, { recursive: true });
});

/** Unlike fetch it sends any Host, and any path as it stands. */
function ask(url: string, { method = 'GET', headers = {}, body = '' } = {}): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const sent = request({ host: '127.0.0.1', port, path: url, method, headers }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (part: string) => {
        text += part;
      });
      response.on('end', () => resolve({ status: response.statusCode!, headers: response.headers, body: text }));
    });
    sent.on('error', reject);
    sent.end(body);
  });
}
const JSON_TYPE = { 'content-type': 'application/json' };
const post = (body: unknown, headers: Record<string, string> = JSON_TYPE): Promise<Reply> =>
  ask('/api/run', { method: 'POST', headers, body: typeof body === 'string' ? body : JSON.stringify(body) });

describe('the server', () => {
  it('gives the page and its parts, with a policy that allows nothing from elsewhere', async () => {
    for (const [url, type] of Object.entries({
      '/': 'text/html',
      '/playground.js': 'text/javascript',
      '/playground.css': 'text/css',
      '/favicon.svg': 'image/svg+xml',
      '/api/examples': 'application/json',
      '/api/trace': 'application/json',
    })) {
      const { status, headers, body } = await ask(url);
      expect([url, status]).toEqual([url, 200]);
      expect(headers['content-type']).toContain(type);
      expect(headers['x-content-type-options']).toBe('nosniff');
      expect(headers['content-security-policy']).toMatch(/^default-src 'none'; script-src 'self'; style-src 'self'; /);
      expect(headers['content-security-policy']).not.toMatch(/unsafe|https?:|\*/);
      expect(body).not.toBe('');
    }
  });

  it('has no network address', async () => {
    expect(server.address()).toMatchObject({ address: '127.0.0.1' });
    const outside = Object.values(networkInterfaces())
      .flatMap((each) => each ?? [])
      .filter(({ internal, family }) => !internal && family === 'IPv4');
    for (const { address: host } of outside) {
      const reached = await new Promise((resolve) => {
        const socket = connect({ host, port, timeout: 2000 });
        socket
          .on('connect', () => resolve(true))
          .on('error', () => resolve(false))
          .on('timeout', () => resolve(false));
        socket.on('connect', () => socket.destroy()).on('timeout', () => socket.destroy());
      });
      expect([host, reached]).toEqual([host, false]);
    }
  });

  it('refuses requests for another host, and from pages of another', async () => {
    for (const host of ['evil.example', `evil.example:${port}`, '127.0.0.1', `127.0.0.1:${port + 1}`, 'localhost']) {
      expect([host, (await ask('/', { headers: { host } })).status]).toEqual([host, 403]);
    }
    for (const host of [`127.0.0.1:${port}`, `localhost:${port}`]) {
      expect((await ask('/', { headers: { host } })).status).toBe(200);
      expect((await post({ example: 'square' }, { ...JSON_TYPE, host, origin: `http://${host}` })).status).toBe(200);
    }
    for (const origin of ['http://evil.example', 'null', `https://127.0.0.1:${port}`]) {
      expect([origin, (await post({ example: 'square' }, { ...JSON_TYPE, origin })).status]).toEqual([origin, 403]);
    }
    const { status, headers } = await ask('/', { headers: { host: 'evil.example' } });
    expect([status, headers['content-security-policy']]).toEqual([403, expect.stringContaining("default-src 'none'")]);
  });

  it('takes no path from a URL', async () => {
    for (const url of [
      '/index.html',
      '/../package.json',
      '/%2e%2e/package.json',
      '//etc/passwd',
      '/playground.js/',
      '/?x',
    ]) {
      expect([url, (await ask(url)).status]).toEqual([url, 404]);
    }
    expect((await ask('/', { method: 'POST' })).status).toBe(404);
    expect((await ask('/api/run')).status).toBe(404);
  });

  it.each([
    ['no JSON', '{"example":', 400],
    ['nothing', '', 400],
    ['no object', 'null', 400],
    ['an example that there is not', { example: 'nothing' }, 400],
    ['inputs that are no object', { example: 'square', inputs: [] }, 400],
    ['an input that there is not', { example: 'square', inputs: { z: 1 } }, 400],
    ['one that every object has', { example: 'square', inputs: { constructor: 1 } }, 400],
    ['text for a number', { example: 'square', inputs: { x: '3' } }, 400],
    ['a number that overflows', '{"example":"square","inputs":{"x":1e999}}', 400],
    ['a number beyond its range', { example: 'depth', inputs: { depth: 41 } }, 400],
    ['a fraction for a count', { example: 'depth', inputs: { depth: 2.5 } }, 400],
    ['a choice that there is not', { example: 'depth', inputs: { activation: 'toString' } }, 400],
    ['a matrix of another shape', { example: 'two-layers', inputs: { x: [[1, 2, 3]] } }, 400],
    ['a matrix that is none', { example: 'two-layers', inputs: { x: [[1, 2, 3, null]] } }, 400],
    ['too much', `"${'x'.repeat(64 * 1024)}"`, 413],
  ])('answers %s with what is wrong', async (_, body, status) => {
    const reply = await post(body);
    expect([reply.status, JSON.parse(reply.body)]).toEqual([status, { error: expect.stringMatching(/.{5}/) }]);
    expect((await post({ example: 'square' })).status).toBe(200);
  });

  it('refuses a body of another type, or of no length', async () => {
    expect((await post('{"example":"square"}', { 'content-type': 'text/plain' })).status).toBe(415);
    expect((await post('{"example":"square"}', { ...JSON_TYPE, 'transfer-encoding': 'chunked' })).status).toBe(411);
  });

  it('says so when its port is taken', async () => {
    const error = await serve({ port, trace: null }).catch((failed: unknown) => failed);
    expect(error).toBeInstanceOf(ArgumentError);
    expect((error as Error).message).toMatch(new RegExp(`port ${port}.*EADDRINUSE`));
  });
});

type Backward = Extract<TraceStep, { pass: 'backward' }>;
const backward = ({ steps }: Trace): Backward[] => steps.filter((step): step is Backward => step.pass === 'backward');

/** The last sum that arrived at the node of a name. */
function gradientOf(trace: Trace, name: string): number[] {
  const id = trace.nodes.findIndex((node) => node.name === name);
  const sums = backward(trace).flatMap(({ edges }) => edges.filter(({ to }) => to === id).map(({ sum }) => sum));
  return sums.at(-1)!.data as number[];
}
const lossOf = ({ nodes, loss }: Trace): number => nodes[loss]!.value.data![0] as number;
const run = (example: string, inputs: object = {}): Outcome => runExample({ example, inputs });

describe('the examples', () => {
  it.each(describeExamples().map(({ id }) => id))('%s: gives a trace that a reader accepts', (id) => {
    const { trace } = run(id);
    expect(parseTrace(JSON.stringify(trace))).toEqual(JSON.parse(JSON.stringify(trace)));
    expect(backward(trace).length).toBeGreaterThan(2);
  });

  it('the square ends at 14, 28, 42', () => {
    const { trace } = run('square');
    expect(['b', 'x', 'w'].map((name) => gradientOf(trace, name))).toEqual([[14], [28], [42]]);
    expect(lossOf(trace)).toBe(49);
    expect(gradientOf(run('square', { x: -1, w: 0.5, b: 4 }).trace, 'w')).toEqual([-7]);
  });

  it('the diamond adds up both paths, and both uses of x', () => {
    const { trace } = run('diamond');
    const id = trace.nodes.findIndex(({ name }) => name === 'x');
    const arrived = backward(trace).flatMap(({ edges }) => edges.filter(({ to }) => to === id));
    expect(arrived.map(({ product, sum }) => [product.data, sum.data])).toEqual([
      [[15], [15]],
      [[15], [30]],
    ]);
  });

  it('the network is the one of the lesson', () => {
    const { trace } = run('two-layers');
    const lesson = golden.two_layer_seed42;
    expectClose([lossOf(trace)], [lesson.loss], TIGHT, 'loss');
    expectClose(gradientOf(trace, 'W1'), lesson.dW1.flat(), TIGHT, 'dW1');
    expectClose(gradientOf(trace, 'b1'), lesson.db1, TIGHT, 'db1');
    expectClose(gradientOf(trace, 'b2'), lesson.db2, TIGHT, 'db2');
  });

  it('the batch is the mean of single examples', () => {
    const { inputs } = describeExamples().find(({ id }) => id === 'batch')!;
    const [X, Y] = [inputs.X as MatrixInput, inputs.Y as MatrixInput];
    const single = X.value.map((x, i) => run('two-layers', { x: [x], y: [Y.value[i]!] }).trace);
    const { trace } = run('batch');
    const mean = (of: (trace: Trace) => number[]): number[] =>
      of(single[0]!).map((_, i) => single.reduce((sum, each) => sum + of(each)[i]!, 0) / single.length);
    expectClose(
      [lossOf(trace)],
      mean((each) => [lossOf(each)]),
      TIGHT,
      'loss',
    );
    for (const name of ['W1', 'b1', 'W2', 'b2']) {
      expectClose(
        gradientOf(trace, name),
        mean((each) => gradientOf(each, name)),
        TIGHT,
        name,
      );
    }
  });

  it('depth: sigmoids lose the gradient, large weights explode it, a norm keeps it', () => {
    const ratio = (inputs: object): number => {
      const steps = backward(run('depth', { depth: 20, ...inputs }).trace);
      // The first step is of the loss; the last one is of the first layer.
      return steps.at(-1)!.upstream.norm / steps[2]!.upstream.norm;
    };
    expect(ratio({ activation: 'sigmoid' })).toBeLessThan(1e-8);
    expect(ratio({ activation: 'relu', scale: 3 })).toBeGreaterThan(1e4);
    expect(ratio({ activation: 'relu', scale: 1, residual: 'yes', norm: 'layer norm' })).toBeGreaterThan(0.5);
    expect(ratio({ activation: 'relu', scale: 1, residual: 'yes', norm: 'layer norm' })).toBeLessThan(100);
  });

  it('two moons: learns, and depends on its inputs alone', () => {
    const step = (iterations: number, seed = 0) => run('two-moons', { iterations, seed }).training!;
    const begin = step(0);
    expect(begin).toMatchObject({ iteration: 0, losses: [expect.any(Number)] });
    expect(begin.boundary.values).toHaveLength(begin.boundary.columns * begin.boundary.rows);
    const [halfway, end] = [step(100), step(200)];
    expect(end.losses).toHaveLength(201);
    expect(end.losses.slice(0, 100)).toEqual(halfway.losses.slice(0, 100));
    expect(end.losses.at(-1)!).toBeLessThan(begin.losses[0]! / 5);
    expect(end.accuracy).toBeGreaterThan(0.95);
    // The probability where the points are says the same as the accuracy.
    const { columns, rows, x, y, values } = end.boundary;
    const cell = (value: number, [least, most]: readonly [number, number], n: number): number =>
      Math.floor(((value - least) / (most - least)) * n);
    const right = end.points.filter(
      (point) => values[cell(point.y, y, rows) * columns + cell(point.x, x, columns)]! > 0.5 === (point.label === 1),
    );
    expect(right.length / end.points.length).toBeCloseTo(end.accuracy, 1);
    expect(step(10, 1).losses).not.toEqual(step(10).losses);
    expect(step(200)).toEqual(end);
  });

  it('refuses what it does not know', () => {
    expect(thrownBy(() => runExample(undefined))).toBeInstanceOf(ArgumentError);
    expect(thrownBy(() => runExample({ example: 'toString' }))).toBeInstanceOf(ArgumentError);
  });
});

describe('the program', () => {
  const file = (name: string, text: string): string => {
    const made = path.join(directory, name);
    writeFileSync(made, text);
    return made;
  };
  const cli = (...args: string[]) => runScript('lib/cli/main.ts', { args });

  it('as it is built serves the page, and a trace by name', async () => {
    const { trace } = run('square');
    const made = file('square.json', JSON.stringify(trace));
    const child = spawn(process.execPath, ['dist/cli/main.js', 'playground', made], {
      cwd: path.join(import.meta.dirname, '..'),
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    children.push(child);
    const url = await new Promise<string>((resolve, reject) => {
      child.on('exit', (code) => reject(new Error(`ended with code ${code}`)));
      child.stdout!.on('data', (data: Buffer) => resolve(/http:\S+/.exec(String(data))![0]));
    });
    expect(new URL(url).hostname).toBe('127.0.0.1');
    expect(await (await fetch(url)).text()).toContain('<script type="module"');
    expect(await (await fetch(`${url}api/trace`)).json()).toEqual({
      name: 'square.json',
      trace: JSON.parse(JSON.stringify(trace)),
    });
  });

  it.each([
    ['a file that is not there', () => path.join(directory, 'none.json'), /none\.json: ENOENT/],
    ['a directory', () => directory, /EISDIR/],
    ['a file that is cut off', () => file('cut.json', JSON.stringify(run('square').trace).slice(0, -9)), /cut off/],
    ['a file of something else', () => file('other.json', '{"name":"chainrule"}'), /is no trace/],
  ])('ends with code 1 and the reason for %s', async (_, make, reason) => {
    const { code, stdout, stderr } = await cli('playground', make());
    expect([code, stdout]).toEqual([1, '']);
    expect(stderr).toMatch(reason);
    expect(stderr).not.toContain('    at ');
  });

  it.each([
    ['an option that there is not', ['playground', '--prot', '1']],
    ['a port that is none', ['playground', '--port', '99999']],
    ['two files', ['playground', 'a.json', 'b.json']],
    ['a command that there is not', ['toString']],
  ])('ends with code 2 and the usage for %s', async (_, args) => {
    const { code, stderr } = await cli(...args);
    expect(code).toBe(2);
    expect(stderr).toMatch(/^chainrule: .+\n\nUsage:\n {2}chainrule playground/);
  });

  it('prints its usage when asked', async () => {
    const { code, stdout } = await cli('--help');
    expect([code, stdout]).toEqual([0, expect.stringMatching(/^Usage:\n {2}chainrule playground \[trace\.json\]/)]);
  });
});
