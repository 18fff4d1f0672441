// TensorBoard's event files: read back by a small reader of the test's own, and one event byte for byte. That TensorBoard
// itself reads them is checked outside the tests, by scripts/check-tensorboard.sh.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import {
  ArgumentError,
  AutogradError,
  compile,
  DisposedError,
  type DType,
  io,
  mseLoss,
  nn,
  randn,
  ShapeError,
  tensor,
  zeros,
} from '../lib/index.ts';
import { crc32c } from '../lib/io/event-file.ts';
import { thrownBy } from './support.ts';

const directory = mkdtempSync(path.join(tmpdir(), 'tensorboard-'));
afterAll(() => rmSync(directory, { recursive: true }));
let count = 0;
const newDir = (): string => path.join(directory, `run${count++}`);

// ---- a reader -----------------------------------------------------------------------------------------------------------
/** The remainder of a division by the polynomial, bit by bit. */
function slowCrc(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    for (let bit = 0; bit < 8; bit++) {
      const odd = (crc ^ (byte >> bit)) & 1;
      crc >>>= 1;
      if (odd) crc ^= 0x82f63b78;
    }
  }
  return ~crc >>> 0;
}

function checkedCrc(stored: number, bytes: Uint8Array): void {
  const rotated = (stored - 0xa282ead8) >>> 0;
  expect(((rotated << 15) | (rotated >>> 17)) >>> 0).toBe(slowCrc(bytes));
}

/** The data of every record, with both checksums proven. */
function recordsOf(file: string): Buffer[] {
  const bytes = readFileSync(file);
  const records: Buffer[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = Number(bytes.readBigUInt64LE(at));
    checkedCrc(bytes.readUInt32LE(at + 8), bytes.subarray(at, at + 8));
    const data = bytes.subarray(at + 12, at + 12 + length);
    expect(data.length).toBe(length);
    checkedCrc(bytes.readUInt32LE(at + 12 + length), data);
    records.push(data);
    at += length + 16;
  }
  return records;
}

/** By number, all values of a field: integers as bigint, the rest as their bytes. */
type Fields = Map<number, (bigint | Buffer)[]>;
function fieldsOf(bytes: Buffer): Fields {
  const fields: Fields = new Map();
  let at = 0;
  const varint = (): bigint => {
    for (let value = 0n, shift = 0n; ; shift += 7n) {
      const byte = bytes[at++]!;
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return value;
    }
  };
  const take = (length: number): Buffer => {
    if ((at += length) > bytes.length) throw new Error(`a field of ${length} bytes ends behind its message`);
    return bytes.subarray(at - length, at);
  };
  while (at < bytes.length) {
    const key = Number(varint());
    const [number, type] = [key >> 3, key & 7];
    const value = { 0: varint, 1: () => take(8), 2: () => take(Number(varint())), 5: () => take(4) }[type]!();
    if (fields.get(number)?.push(value) === undefined) fields.set(number, [value]);
  }
  return fields;
}
const all = (fields: Fields, number: number): Fields[] => (fields.get(number) ?? []).map((v) => fieldsOf(v as Buffer));
const one = (fields: Fields, number: number): Fields => all(fields, number)[0]!;
const bytes = (fields: Fields, number: number): Buffer => fields.get(number)![0] as Buffer;
const string = (fields: Fields, number: number): string => bytes(fields, number).toString();
const strings = (fields: Fields, number: number): string[] => (fields.get(number) ?? []).map(String);
const int = (fields: Fields, number: number): number => Number(BigInt.asIntN(64, fields.get(number)![0] as bigint));
const double = (fields: Fields, number: number): number => bytes(fields, number).readDoubleLE();
const doubles = (fields: Fields, number: number): number[] =>
  Array.from({ length: bytes(fields, number).length / 8 }, (_, i) => bytes(fields, number).readDoubleLE(8 * i));

const eventsOf = (writer: io.SummaryWriter): Fields[] => recordsOf(writer.path).map(fieldsOf);
const summariesOf = (writer: io.SummaryWriter): Fields[] =>
  eventsOf(writer).flatMap((event) => (event.has(5) ? all(one(event, 5), 1) : []));

interface Scalar {
  tag: string;
  step: number;
  wallTime: number;
  value: number;
}
function scalarsOf(writer: io.SummaryWriter): Scalar[] {
  return eventsOf(writer).flatMap((event) =>
    (event.has(5) ? all(one(event, 5), 1) : [])
      .filter((value) => value.has(2))
      .map((value) => ({
        tag: string(value, 1),
        step: int(event, 2),
        wallTime: double(event, 1),
        value: bytes(value, 2).readFloatLE(),
      })),
  );
}

/** Writes with a writer that is closed then. */
function written(write: (writer: io.SummaryWriter) => void, options?: io.SummaryWriterOptions): io.SummaryWriter {
  const writer = new io.SummaryWriter(newDir(), options);
  write(writer);
  writer.close();
  return writer;
}

// ---- tests --------------------------------------------------------------------------------------------------------------
describe('the file', () => {
  it('has the checksum of the standard check value', () => {
    expect(crc32c(Buffer.from('123456789')).toString(16)).toBe('e3069283');
    expect(crc32c(new Uint8Array())).toBe(0);
    fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), (data) => crc32c(data) === slowCrc(data)));
  });

  it('has the name that TensorBoard looks for, and another for each writer', () => {
    const dir = path.join(newDir(), 'deep');
    const before = Math.floor(Date.now() / 1000);
    const writers = [1, 2, 3].map(() => new io.SummaryWriter(dir));
    for (const writer of writers) writer.close();
    const names = readdirSync(dir);
    expect(names.sort()).toEqual(writers.map((writer) => path.basename(writer.path)).sort());
    for (const name of names) {
      const [, seconds, host, pid] = /^events\.out\.tfevents\.(\d+)\.(.+)\.(\d+)\.\d+$/.exec(name)!;
      expect([host, Number(pid)]).toEqual([hostname(), process.pid]);
      expect(Number(seconds) - before).toBeLessThan(60);
    }
    expect(writers[0]!.logDir).toBe(dir);
  });

  it('begins with its version, and has one event in these bytes', () => {
    const writer = written((w) => w.addScalar('a', 0.5, 3, 1.5));
    const [version, event] = recordsOf(writer.path) as [Buffer, Buffer];
    expect(string(fieldsOf(version), 3)).toBe('brain.Event:2');
    expect(Math.abs(double(fieldsOf(version), 1) - Date.now() / 1000)).toBeLessThan(60);
    // wall_time 1.5, step 3, summary { value { tag "a", simple_value 0.5 } }
    expect(event.toString('hex')).toBe('09000000000000f83f10032a0a0a080a0161150000003f');
    // How every such file begins: a record of 24 bytes, the masked checksum of that, the time.
    expect(readFileSync(writer.path).subarray(0, 13).toString('hex')).toBe('1800000000000000a37f4b2209');
  });

  it('survives a disk that is full: what was written stays, and the rest comes when there is room', () => {
    const script = `
      import { io } from './lib/index.ts';
      import { copyFileSync, statSync } from 'node:fs';
      import { spawnSync } from 'node:child_process';
      const writer = new io.SummaryWriter(process.argv[1], { maxQueue: 10_000 });
      for (let i = 0; i < 10; i++) writer.addScalar('a', i, i);
      writer.flush();
      const { size } = statSync(writer.path);
      for (let i = 10; i < 3000; i++) writer.addScalar('a', i, i);
      try { writer.flush(); } catch ({ code }) { console.log(JSON.stringify({ code, size, file: writer.path })); }
      copyFileSync(writer.path, writer.path + '.full');
      spawnSync('prlimit', ['--pid', String(process.pid), '--fsize=unlimited']);
      writer.close();`;
    const command = 'ulimit -S -f 64 && exec "$0" --import tsx --input-type=module -e "$1" "$2"';
    const { stdout, stderr } = spawnSync('sh', ['-c', command, process.execPath, script, newDir()], {
      encoding: 'utf8',
    });
    expect(stderr).toBe('');
    const { code, size, file } = JSON.parse(stdout) as { code: string; size: number; file: string };
    expect(code).toBe('EFBIG');
    const torn = readFileSync(`${file}.full`);
    expect(torn.length).toBeGreaterThan(size);
    writeFileSync(`${file}.whole`, torn.subarray(0, size));
    expect(recordsOf(`${file}.whole`)).toHaveLength(11);
    const steps = recordsOf(file)
      .slice(1)
      .map((data) => int(fieldsOf(data), 2));
    expect(steps).toEqual([...Array(3000).keys()]);
  });

  it('leaves errors of the file system as they are', () => {
    const file = path.join(directory, 'a-file');
    writeFileSync(file, '');
    expect(thrownBy(() => new io.SummaryWriter(path.join(file, 'run')))).toMatchObject({ code: 'ENOTDIR' });
    expect(thrownBy(() => new io.SummaryWriter(file))).toMatchObject({ code: 'EEXIST' });
  });
});

describe('scalars', () => {
  it('are read back, whatever their value, step and time', () => {
    const points: [number, number, number][] = [
      [0, 0, 0],
      [-0, 1, 1.25],
      [-1.5, -7, 1e9],
      [Number.NaN, 2 ** 53 - 1, 1700000000.123],
      [Number.NEGATIVE_INFINITY, -(2 ** 53) + 1, 1],
      [1e39, 128, 1],
      [0.1, 16384, 1],
    ];
    const writer = written((w) => {
      for (const point of points) w.addScalar('tag', ...point);
    });
    expect(scalarsOf(writer)).toEqual(
      points.map(([value, step, wallTime]) => ({ tag: 'tag', value: Math.fround(value), step, wallTime })),
    );
    expect(Math.fround(1e39)).toBe(Number.POSITIVE_INFINITY);
  });

  it('take a tensor of one element, a tag in any script, and the time that it is', () => {
    const writer = written((w) => {
      w.addScalar('потеря/🔥', tensor([[2.5]]), 1);
      w.addScalar('x'.repeat(1000), tensor(true, { dtype: 'bool' }), 2);
    });
    const [first, second] = scalarsOf(writer) as [Scalar, Scalar];
    expect([first.tag, first.value, second.tag.length, second.value]).toEqual(['потеря/🔥', 2.5, 1000, 1]);
    expect(Math.abs(first.wallTime - Date.now() / 1000)).toBeLessThan(60);
    expect(() => written((w) => w.addScalar('a', tensor([1, 2]), 1))).toThrow(ShapeError);
  });
});

describe('what waits', () => {
  const waiting = (writer: io.SummaryWriter): number => 2 - recordsOf(writer.path).length;

  it('is written by flush, by close, and at the end of a using block', () => {
    const writer = new io.SummaryWriter(newDir());
    writer.addScalar('a', 1, 1);
    expect(waiting(writer)).toBe(1);
    writer.flush();
    expect(waiting(writer)).toBe(0);
    writer.flush();
    expect(waiting(writer)).toBe(0);
    writer.close();
    const open = (): io.SummaryWriter => {
      using inner = new io.SummaryWriter(newDir());
      inner.addScalar('a', 1, 1);
      expect(waiting(inner)).toBe(1);
      return inner;
    };
    const closed = open();
    expect(waiting(closed)).toBe(0);
    expect(() => closed.flush()).toThrow(DisposedError);
  });

  it('is at most maxQueue events, or flushSecs old', () => {
    const writer = new io.SummaryWriter(newDir(), { maxQueue: 3 });
    const sizes = [1, 2, 3, 4].map((step) => {
      writer.addScalar('a', step, step);
      return recordsOf(writer.path).length;
    });
    expect(sizes).toEqual([1, 1, 4, 4]);
    writer.close();
    const hasty = new io.SummaryWriter(newDir(), { flushSecs: 0 });
    hasty.addScalar('a', 1, 1);
    expect(waiting(hasty)).toBe(0);
    hasty.close();
  });

  it('is nothing after close, which may be called twice', () => {
    const writer = written((w) => w.addScalar('a', 1, 1));
    writer.close();
    const { length } = readFileSync(writer.path);
    const x = tensor([1], { requiresGrad: true }).mul(2);
    for (const write of [
      () => writer.addScalar('a', 1, 1),
      () => writer.addHistogram('a', [1], 1),
      () => writer.addText('a', 'b', 1),
      () => writer.addGraph(x),
      () => writer.flush(),
    ]) {
      expect(write).toThrow(DisposedError);
      expect(write).toThrow(`the writer of ${writer.path} is closed`);
    }
    expect(readFileSync(writer.path)).toHaveLength(length);
  });
});

describe('histograms', () => {
  interface Read {
    moments: number[];
    limits: number[];
    buckets: number[];
  }
  function histogram(values: Parameters<io.SummaryWriter['addHistogram']>[1]): Read {
    const [value] = summariesOf(written((w) => w.addHistogram('h', values, 1)));
    const proto = one(value!, 5);
    return {
      moments: [1, 2, 3, 4, 5].map((number) => double(proto, number)),
      limits: doubles(proto, 6),
      buckets: doubles(proto, 7),
    };
  }

  it('count what lies between two limits', () => {
    const { moments, limits, buckets } = histogram([0, -0, 0.5, 0.5, -3, 1e-13]);
    expect(moments).toEqual([-3, 0.5, 6, -2 + 1e-13, 9.5 + 1e-26]);
    // [-3], a run of empty ones, [0, -0, 1e-13], a run, [0.5, 0.5].
    expect(buckets).toEqual([1, 0, 3, 0, 2]);
    expect(limits).toEqual([...limits].sort((a, b) => a - b));
    const [above, zero, tiny, half, beyond] = limits as [number, number, number, number, number];
    expect(above).toBeGreaterThan(-3);
    expect(above).toBeLessThan(-3 / 1.1);
    expect([zero, tiny]).toEqual([0, 1e-12]);
    expect(half).toBeLessThanOrEqual(0.5);
    expect(beyond).toBeGreaterThan(0.5);
    expect(beyond / half).toBeCloseTo(1.1, 10);
  });

  it('agree with a count by hand, for any values', () => {
    const value = fc.oneof(fc.double({ noNaN: true, noDefaultInfinity: true }), fc.double({ min: -9, max: 9 }));
    fc.assert(
      fc.property(fc.array(value, { minLength: 1, maxLength: 50 }), (values) => {
        const numbers = values.filter((v) => !Number.isNaN(v));
        fc.pre(numbers.length > 0);
        const { moments, limits, buckets } = histogram(numbers);
        expect(moments.slice(0, 3)).toEqual([Math.min(...numbers), Math.max(...numbers), numbers.length]);
        const last = limits.length - 1;
        const counted = limits.map(
          (limit, i) =>
            numbers.filter((v) => (i === 0 || v >= limits[i - 1]!) && (v < limit || (i === last && v === limit)))
              .length,
        );
        expect(buckets).toEqual(counted);
        expect(buckets.reduce((a, b) => a + b)).toBe(numbers.length);
      }),
      { numRuns: 200 },
    );
  });

  it('have the ends of the doubles in their last buckets', () => {
    const { limits, buckets } = histogram([Number.MAX_VALUE, -Number.MAX_VALUE, 1e300, 5e-324]);
    expect(buckets).toEqual([1, 0, 1, 0, 2]);
    expect(limits[0]).toBe(-limits[3]!);
    expect(limits[3]).toBeGreaterThan(9e19);
    expect(limits[4]).toBe(Number.MAX_VALUE);
  });

  it.each<DType>(['float32', 'float64', 'int32', 'uint8', 'bool', 'bfloat16'])('take %s tensors', (dtype) => {
    const t = tensor(
      [
        [0, 1],
        [1, 1],
      ],
      { dtype },
    );
    const { moments, buckets } = histogram(t.T);
    expect(moments).toEqual([0, 1, 4, 3, 3]);
    expect(buckets).toEqual([1, 0, 3]);
  });

  it('take parameters, views, typed arrays and many values', () => {
    const { moments } = histogram(new nn.Linear(300, 200).weight);
    expect(moments[2]).toBe(60_000);
    expect(histogram(tensor([1, 2, 3, 4]).narrow(0, 1, 2)).moments).toEqual([2, 3, 2, 5, 13]);
    expect(histogram(Int32Array.of(-1, 1)).buckets).toEqual([1, 0, 1]);
  });

  it('leave out what is not finite, and say how much', () => {
    const mixed = [1, Number.NaN, Number.POSITIVE_INFINITY, 2, Number.NEGATIVE_INFINITY];
    const writer = written((w) => {
      w.addHistogram('h', mixed, 1);
      w.addHistogram('h', tensor([Number.NaN, Number.NaN]), 2);
      w.addHistogram('h', [1], 3);
    });
    const read = summariesOf(writer).map((value) => [
      string(value, 1),
      value.has(5) ? double(one(value, 5), 3) : bytes(value, 2).readFloatLE(),
    ]);
    expect(read).toEqual([
      ['h', 2],
      ['h/nonfinite', 3],
      ['h/nonfinite', 2],
      ['h', 1],
    ]);
    const [{ moments }] = [histogram(mixed)];
    expect(moments).toEqual([1, 2, 2, 3, 5]);
  });
});

describe('text', () => {
  it('is a tensor of one string for the plugin of that name', () => {
    const writer = written((w) => w.addText('notes', '# lr ≤ 0.1', 4));
    const [value] = summariesOf(writer);
    const [tensorProto, metadata] = [one(value!, 8), one(value!, 9)];
    expect(string(value!, 1)).toBe('notes');
    expect([int(tensorProto, 1), string(tensorProto, 8)]).toEqual([7, '# lr ≤ 0.1']);
    expect(int(one(one(tensorProto, 2), 2), 1)).toBe(1);
    expect([string(one(metadata, 1), 1), int(metadata, 4)]).toEqual(['text', 2]);
  });
});

describe('graphs', () => {
  interface Drawn {
    op: string;
    inputs: string[];
    shape: number[];
    dtype: number;
  }
  function graph(...args: Parameters<io.SummaryWriter['addGraph']>): Record<string, Drawn> {
    const event = eventsOf(written((w) => w.addGraph(...args)))[1]!;
    const nodes = all(one(event, 4), 1).map((node): [string, Drawn] => {
      const attributes = new Map(all(node, 5).map((entry) => [string(entry, 1), one(entry, 2)]));
      const shape = all(one(one(attributes.get('_output_shapes')!, 1), 7), 2).map((dim) => int(dim, 1));
      const dtype = int(attributes.get('T')!, 6);
      return [string(node, 1), { op: string(node, 2), inputs: strings(node, 3), shape, dtype }];
    });
    expect(int(one(one(event, 4), 4), 1)).toBe(22);
    expect(new Set(nodes.map(([name]) => name)).size).toBe(nodes.length);
    return Object.fromEntries(nodes);
  }

  it('show the model that a loss came out of, after backward too', () => {
    const model = new nn.Sequential(new nn.Linear(3, 4), new nn.Tanh(), new nn.Linear(4, 2));
    const loss = mseLoss(model.call(randn([5, 3])), zeros([5, 2]));
    const nodes = graph(loss, model.namedParameters());
    expect(nodes).toEqual({
      '0/weight': { op: 'Leaf', inputs: [], shape: [4, 3], dtype: 1 },
      '0/bias': { op: 'Leaf', inputs: [], shape: [4], dtype: 1 },
      '2/weight': { op: 'Leaf', inputs: [], shape: [2, 4], dtype: 1 },
      '2/bias': { op: 'Leaf', inputs: [], shape: [2], dtype: 1 },
      Addmm: { op: 'Addmm', inputs: ['0/bias', '0/weight'], shape: [5, 4], dtype: 1 },
      Tanh: { op: 'Tanh', inputs: ['Addmm'], shape: [5, 4], dtype: 1 },
      Addmm_1: { op: 'Addmm', inputs: ['2/bias', 'Tanh', '2/weight'], shape: [5, 2], dtype: 1 },
      MseLoss: { op: 'MseLoss', inputs: ['Addmm_1'], shape: [], dtype: 1 },
    });
    loss.backward();
    expect(graph(loss, model.namedParameters())).toEqual(nodes);
  });

  it('give every node a name of its own, also where names collide', () => {
    const a = tensor([1, 2], { requiresGrad: true, dtype: 'float64' });
    const [b, c] = [a, a].map(() => tensor([1, 2], { requiresGrad: true, dtype: 'float64' }));
    const y = a.mul(b!).add(a).mul(c!);
    expect(
      graph(y, [
        ['Mul', a],
        ['', b!],
        ['../^c:0', c!],
      ]),
    ).toEqual({
      Mul: { op: 'Leaf', inputs: [], shape: [2], dtype: 2 },
      Leaf: { op: 'Leaf', inputs: [], shape: [2], dtype: 2 },
      Mul_1: { op: 'Mul', inputs: ['Mul', 'Leaf'], shape: [2], dtype: 2 },
      Add: { op: 'Add', inputs: ['Mul_1', 'Mul'], shape: [2], dtype: 2 },
      _c_0: { op: 'Leaf', inputs: [], shape: [2], dtype: 2 },
      Mul_2: { op: 'Mul', inputs: ['Add', '_c_0'], shape: [2], dtype: 2 },
    });
  });

  it('may be deep', () => {
    let y = tensor([1], { requiresGrad: true });
    for (let i = 0; i < 20_000; i++) y = y.mul(1);
    const nodes = Object.entries(graph(y));
    expect(nodes).toHaveLength(20_001);
    expect(nodes.at(-1)).toEqual(['Mul_19999', { op: 'Mul', inputs: ['Mul_19998'], shape: [1], dtype: 1 }]);
  });

  it('need a tensor that was computed', () => {
    const step = compile((x: typeof leaf) => x.mul(2));
    const leaf = tensor([1], { requiresGrad: true });
    for (const none of [leaf, tensor([1]), step(leaf)]) expect(() => graph(none)).toThrow(AutogradError);
  });
});

describe('arguments', () => {
  const bad = (value: unknown): never => value as never;
  it.each<[string, (w: io.SummaryWriter) => void]>([
    ['addScalar: the tag is ""', (w) => w.addScalar('', 1, 1)],
    ['addScalar: the tag is undefined', (w) => w.addScalar(bad(undefined), 1, 1)],
    ['addScalar: the value is "1"', (w) => w.addScalar('a', bad('1'), 1)],
    ['addScalar: step is 1.5', (w) => w.addScalar('a', 1, 1.5)],
    ['addScalar: step is undefined', (w) => w.addScalar('a', 1, bad(undefined))],
    ['addScalar: wallTime is NaN', (w) => w.addScalar('a', 1, 1, Number.NaN)],
    ['addHistogram: no values', (w) => w.addHistogram('a', [], 1)],
    ['addHistogram: no values', (w) => w.addHistogram('a', zeros([0, 3]), 1)],
    ['addHistogram: values that are 3', (w) => w.addHistogram('a', bad(3), 1)],
    ['addHistogram: values that are an array of 2', (w) => w.addHistogram('a', bad([1, '2']), 1)],
    ['addHistogram: values that are a BigInt64Array', (w) => w.addHistogram('a', bad(BigInt64Array.of(1n)), 1)],
    ['addText: the text is 5', (w) => w.addText('a', bad(5), 1)],
    ['addGraph: the input is 5', (w) => w.addGraph(bad(5))],
    ['addGraph: the leaf "w" is 5', (w) => w.addGraph(tensor([1], { requiresGrad: true }).mul(2), [['w', bad(5)]])],
  ])('are refused: %s', (message, write) => {
    const writer = new io.SummaryWriter(newDir());
    expect(() => write(writer)).toThrow(ArgumentError);
    expect(() => write(writer)).toThrow(message);
    writer.close();
    expect(recordsOf(writer.path)).toHaveLength(1);
  });

  it('of the writer too', () => {
    expect(() => new io.SummaryWriter('')).toThrow('SummaryWriter: the logDir is ""');
    for (const options of [{ maxQueue: 0 }, { maxQueue: 1.5 }, { flushSecs: -1 }, { flushSecs: Number.NaN }]) {
      expect(() => new io.SummaryWriter(newDir(), options)).toThrow(ArgumentError);
    }
    const dir = newDir();
    expect(() => new io.SummaryWriter(dir, bad({ flush_secs: 1 }))).toThrow('unknown option "flush_secs"');
    expect(existsSync(dir)).toBe(false);
    const disposed = tensor([1]);
    disposed.dispose();
    expect(() => written((w) => w.addHistogram('a', disposed, 1))).toThrow(DisposedError);
  });
});
