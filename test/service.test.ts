// The service example: the server in this process, and the program as a user runs it.
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { afterAll, describe, expect, it } from 'vitest';
import { UsageError } from '../examples/command-line.ts';
import { type Idx, loadMnist, PIXELS, readMnist } from '../examples/mnist/mnist.ts';
import { BATCH, type Example } from '../examples/service/learner.ts';
import { parseOptions } from '../examples/service/options.ts';
import { createService, type Service } from '../examples/service/service.ts';
import { io } from '../lib/index.ts';

const directory = mkdtempSync(path.join(tmpdir(), 'service-'));
const children: ChildProcess[] = [];
afterAll(() => {
  for (const child of children) child.kill('SIGKILL');
  rmSync(directory, { recursive: true });
});
const digits = loadMnist('train');
const unseen = readMnist('t10k');

let services = 0;
const newFile = (): string => path.join(directory, `${services++}.safetensors`);
const newService = (checkpoint = newFile()): Service => createService(digits, { checkpoint, every: 3600, seed: 7 });

/** Some examples, from number `first` on. */
const examples = ({ images, labels }: { images: Idx; labels: Idx }, first: number, count: number): Example[] =>
  Array.from({ length: count }, (_, i) => ({
    pixels: [...images.values.subarray(PIXELS * (first + i), PIXELS * (first + i + 1))],
    label: labels.values[first + i]!,
  }));

async function post<T>({ app }: Service, url: string, payload: object): Promise<T> {
  const response = await app.inject({ method: 'POST', url, payload });
  expect(response.statusCode, response.body).toBe(200);
  return response.json<T>();
}

interface Prediction {
  digit: number;
  probabilities: number[];
}
const JUDGES = examples(unseen, 0, 200);
const predictAll = (service: Service): Promise<Prediction[]> =>
  Promise.all(JUDGES.map(({ pixels }) => post<Prediction>(service, '/predict', { pixels })));

async function accuracyOf(service: Service): Promise<number> {
  const right = (await predictAll(service)).filter(({ digit }, i) => digit === JUDGES[i]!.label);
  return right.length / JUDGES.length;
}

async function metricOf({ app }: Service, name: string): Promise<number> {
  const { body } = await app.inject('/metrics');
  const line = body.split('\n').find((each) => each.startsWith(`${name} `));
  expect(line, name).toBeDefined();
  return Number(line!.slice(name.length + 1));
}

describe('the service', () => {
  it('predicts, and learns from requests', async () => {
    const service = newService();
    const [first] = await predictAll(service);
    expect(first!.probabilities).toHaveLength(10);
    expect(first!.probabilities.reduce((a, b) => a + b)).toBeCloseTo(1, 5);
    expect(first!.probabilities[first!.digit]).toBe(Math.max(...first!.probabilities));
    expect(await accuracyOf(service)).toBeLessThan(0.4);

    const training = readMnist('train');
    const losses: number[] = [];
    for (let i = 0; i < 100; i++) {
      const given = { examples: examples(training, BATCH * i, BATCH) };
      losses.push((await post<{ loss: number }>(service, '/learn', given)).loss);
    }
    expect(losses.at(-1)).toBeLessThan(losses[0]! / 2);
    expect(await accuracyOf(service)).toBeGreaterThan(0.8);
    expect(await metricOf(service, 'training_steps')).toBe(100);
    await service.app.close();
  });

  it('learns one example without forgetting the others', async () => {
    const service = newService();
    const [zero] = examples(unseen, 3, 1);
    expect(zero!.label).toBe(0);
    // Whoever uses the service calls it a seven.
    for (let i = 0; i < 300; i++) await post(service, '/learn', { examples: [{ ...zero!, label: 7 }] });
    expect(await post<Prediction>(service, '/predict', { pixels: zero!.pixels })).toMatchObject({ digit: 7 });
    expect(await accuracyOf(service)).toBeGreaterThan(0.85);
    await service.app.close();
  });

  it('answers while it trains in the background', async () => {
    const service = newService();
    service.trainer.start();
    service.trainer.start();
    const { pixels } = JUDGES[0]!;
    while (service.learner.steps < 300) await post(service, '/predict', { pixels });
    expect(await metricOf(service, 'training_running')).toBe(1);
    expect(await metricOf(service, 'training_loss')).toBeLessThan(0.6);
    expect(await metricOf(service, 'training_accuracy')).toBeGreaterThan(0.8);
    expect(await accuracyOf(service)).toBeGreaterThan(0.85);

    await service.trainer.stop();
    const { steps } = service.learner;
    await setTimeout(20);
    expect((await service.app.inject('/health')).json()).toEqual({ status: 'ok', training: false, steps });
    expect(await metricOf(service, 'queue_length')).toBe(0);
    await service.app.close();
  });

  it('tells when training has failed', async () => {
    const service = newService();
    service.learner.train = async () => {
      throw new Error('out of digits');
    };
    service.trainer.start();
    await service.trainer.stop();
    const { statusCode, body } = await service.app.inject('/health');
    expect([statusCode, JSON.parse(body)]).toEqual([
      503,
      { status: 'training failed: out of digits', training: false, steps: 0 },
    ]);
    await service.app.close();
  });

  it('counts requests by route and status', async () => {
    const service = newService();
    await predictAll(service);
    await service.app.inject('/nothing/../here');
    const count = 'http_request_duration_seconds_count';
    expect(await metricOf(service, `${count}{method="POST",route="/predict",status="200"}`)).toBe(JUDGES.length);
    expect(await metricOf(service, `${count}{method="GET",route="none",status="404"}`)).toBe(1);
    expect(await metricOf(service, 'event_loop_delay_seconds{quantile="0.99"}')).toBeGreaterThanOrEqual(0);
    await service.app.close();
  });
});

describe('a bad request', () => {
  const pixels = new Array<number>(PIXELS).fill(0);
  const service = newService();
  afterAll(() => service.app.close());

  it.each<[string, string, unknown]>([
    ['/predict', 'body must be object', null],
    ['/predict', "body must have required property 'pixels'", {}],
    ['/predict', 'body must NOT have additional properties', { pixels, label: 3 }],
    ['/predict', 'body/pixels must be array', { pixels: 'many' }],
    ['/predict', 'body/pixels must NOT have fewer than 784 items', { pixels: pixels.slice(1) }],
    ['/predict', 'body/pixels must NOT have more than 784 items', { pixels: [...pixels, 0] }],
    ['/predict', 'body/pixels/2 must be integer', { pixels: pixels.with(2, 0.5) }],
    [
      '/predict',
      'body/pixels/2 must be integer',
      {
        pixels: pixels
          .map(String)
          .with(0, 0 as never)
          .with(1, 0 as never),
      },
    ],
    ['/predict', 'body/pixels/783 must be <= 255', { pixels: pixels.with(783, 256) }],
    ['/predict', 'body/pixels/0 must be >= 0', { pixels: pixels.with(0, -1) }],
    ['/learn', "body must have required property 'examples'", { pixels, label: 3 }],
    ['/learn', 'body/examples must NOT have fewer than 1 items', { examples: [] }],
    [
      '/learn',
      'body/examples must NOT have more than 64 items',
      { examples: new Array(65).fill({ pixels, label: 3 }) },
    ],
    ['/learn', "body/examples/0 must have required property 'label'", { examples: [{ pixels }] }],
    [
      '/learn',
      'body/examples/1/label must be <= 9',
      {
        examples: [
          { pixels, label: 9 },
          { pixels, label: 10 },
        ],
      },
    ],
    ['/learn', 'body/examples/0/label must be integer', { examples: [{ pixels, label: null }] }],
  ])('%s: %s', async (url, message, payload) => {
    const headers = { 'content-type': 'application/json' };
    const response = await service.app.inject({ method: 'POST', url, headers, payload: JSON.stringify(payload) });
    expect([response.statusCode, response.json<{ message: string }>().message]).toEqual([400, message]);
    expect(service.learner).toMatchObject({ steps: 0, inFlight: 0 });
  });

  it('that is no JSON, or none of the routes, is refused as well', async () => {
    const inject = async (url: string, type: string, payload: string) =>
      (await service.app.inject({ method: 'POST', url, headers: { 'content-type': type }, payload })).statusCode;
    expect(await inject('/predict', 'application/json', '{"pixels":[0,')).toBe(400);
    expect(await inject('/predict', 'application/json', `{"pixels":[${'0,'.repeat(2 ** 20)}0]}`)).toBe(413);
    expect(await inject('/predict', 'text/csv', '0,0')).toBe(415);
    expect(await inject('/train', 'application/json', '{}')).toBe(404);
  });

  it('is one too many when the queue is long', async () => {
    const { pixels } = JUDGES[0]!;
    const inject = () => service.app.inject({ method: 'POST', url: '/predict', payload: { pixels } });
    const all = await Promise.all(Array.from({ length: 400 }, inject));
    const refused = all.filter(({ statusCode }) => statusCode === 503);
    expect(refused.length).toBeGreaterThan(0);
    expect(refused.length + all.filter(({ statusCode }) => statusCode === 200).length).toBe(400);
    expect(refused[0]!.headers['retry-after']).toBe('1');
    expect((await inject()).statusCode).toBe(200);
  });
});

describe('a checkpoint', () => {
  it('is written at the end with training under way, and taken up again', async () => {
    const file = newFile();
    const before = newService(file);
    before.trainer.start();
    while (before.learner.steps < 50) await setTimeout(5);
    await before.app.close();
    expect(before.trainer.running).toBe(false);
    const predictions = await Promise.all(JUDGES.map(({ pixels }) => before.learner.predict(pixels)));

    const after = newService(file);
    expect(after.learner.steps).toBe(before.learner.steps);
    expect(await predictAll(after)).toEqual(predictions);
    // Both go on alike: the optimizer's averages and the order of the digits have come along.
    const { signal } = new AbortController();
    for (const { learner } of [before, after]) for (let i = 0; i < 5; i++) await learner.train(signal);
    const [a, b] = [before, after].map(({ learner }) =>
      JSON.stringify(learner.network.stateDict().get('0.weight')!.toArray()),
    );
    expect(a === b, 'the same weights').toBe(true);
    await after.app.close();
  });

  it('is written now and then, when there is news', async () => {
    const file = newFile();
    const { app, learner } = createService(digits, { checkpoint: file, every: 0.05, seed: 7 });
    await app.ready();
    await setTimeout(120);
    expect(existsSync(file)).toBe(false);
    await learner.train(new AbortController().signal);
    await setTimeout(120);
    expect(io.loadSafetensors(file).metadata.get('steps')).toBe('1');
    await app.close();
  });

  it('of something else is refused', () => {
    const file = newFile();
    writeFileSync(file, 'digits');
    expect(() => newService(file)).toThrow(
      `${file} is not a checkpoint of this service: loadSafetensors: ${file}: 6 bytes`,
    );
    io.saveSafetensors(file, { 'network.0.weight': digits.tensors[0].narrow(0, 0, 1) });
    expect(() => newService(file)).toThrow(`${file} is not a checkpoint of this service: loadStateDict`);
  });
});

describe('npm run service', () => {
  it('has defaults and takes what makes sense', () => {
    expect(parseOptions([])).toMatchObject({ port: 3000, host: '127.0.0.1', train: true, help: false });
    expect(parseOptions(['--port', '0', '--no-train', '--every=5'])).toMatchObject({ port: 0, train: false, every: 5 });
    for (const args of [['--port', '65536'], ['--every', '0'], ['--train'], ['surplus']])
      expect(() => parseOptions(args)).toThrow(UsageError);
  });

  it('serves until SIGTERM or Ctrl-C, saves and leaves with 0', async () => {
    await Promise.all((['SIGTERM', 'SIGINT'] as const).map(serveUntil));
  });
});

async function serveUntil(signal: 'SIGTERM' | 'SIGINT'): Promise<void> {
  const file = newFile();
  const args = ['--import', 'tsx', 'examples/service/main.ts', '--port', '0', '--checkpoint', file];
  const child = spawn(process.execPath, args);
  children.push(child);
  let [out, err] = ['', ''];
  child.stdout.on('data', (chunk) => (out += chunk));
  child.stderr.on('data', (chunk) => (err += chunk));
  const ended = new Promise<number | null>((resolve) => void child.on('close', resolve));
  while (!out.includes('in the background')) {
    expect(child.exitCode, err).toBeNull();
    await setTimeout(10);
  }
  const address = /http:\/\/127\.0\.0\.1:\d+/.exec(out)![0];
  const steps = async () => ((await (await fetch(`${address}/health`)).json()) as { steps: number }).steps;
  while ((await steps()) < 20) await setTimeout(10);
  child.kill(signal);
  expect([await ended, err]).toEqual([0, '']);
  // What it said last is what it saved last.
  const stopped = /stopped after step (\d+)/.exec(out)![1];
  expect(io.loadSafetensors(file).metadata.get('steps')).toBe(stopped);
}
