// Safetensors: the format byte for byte, hostile files, and saves that fail half way.
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { type DType, FormatError, io, memoryStats, nn, type Tensor, tensor, zeros } from '../lib/index.ts';
import { writeFileAtomic } from '../lib/io/atomic-write.ts';

const directory = mkdtempSync(path.join(tmpdir(), 'safetensors-'));
afterAll(() => rmSync(directory, { recursive: true }));
let count = 0;
const newFile = (): string => path.join(directory, `${count++}.safetensors`);

const values = (t: Tensor): number[] => Array.from(t.to('float64').toTypedArray(), Number);

/** A file with this header, which may be anything, and this many zero bytes of data. */
function fileOf(header: string | Uint8Array, dataBytes = 0, length?: bigint): string {
  const text = Buffer.from(header);
  const bytes = Buffer.alloc(8 + text.length + dataBytes);
  bytes.writeBigUInt64LE(length ?? BigInt(text.length));
  text.copy(bytes, 8);
  const file = newFile();
  writeFileSync(file, bytes);
  return file;
}

describe('what is saved is what is loaded', () => {
  const dtypes: DType[] = ['float32', 'float64', 'int32', 'uint8', 'bool', 'bfloat16'];

  it('for every dtype, shape and view', () => {
    const file = newFile();
    const tensors = new Map<string, Tensor>();
    for (const dtype of dtypes) {
      tensors.set(
        `${dtype} matrix`,
        tensor(
          [
            [0, 1, 1],
            [1, 0, 1],
          ],
          { dtype },
        ),
      );
      tensors.set(
        `${dtype} transposed`,
        tensor(
          [
            [0, 1, 1],
            [1, 0, 0],
          ],
          { dtype },
        ).T,
      );
      tensors.set(`${dtype} scalar`, tensor(1, { dtype }));
      tensors.set(`${dtype} empty`, zeros([3, 0, 2], { dtype }));
    }
    tensors.set('numbers', tensor([Math.PI, -0, 1e-45, Number.NaN, Number.POSITIVE_INFINITY]));
    tensors.set('doubles', tensor([Math.PI, 5e-324], { dtype: 'float64' }));
    tensors.set('integers', tensor([2 ** 31 - 1, -(2 ** 31)], { dtype: 'int32' }));
    tensors.set('brains', tensor([3.140625, -1e-30, Number.POSITIVE_INFINITY], { dtype: 'bfloat16' }));
    tensors.set('ключ "\\\u0000 🔑', tensor([1]));
    io.saveSafetensors(file, tensors, { 'made by': 'test', 'line\n': '"' });

    const loaded = io.loadSafetensors(file);
    expect([...loaded.tensors.keys()].sort()).toEqual([...tensors.keys()].sort());
    for (const [name, t] of tensors) {
      const read = loaded.tensors.get(name)!;
      expect([name, read.dtype, read.shape, values(read)]).toEqual([name, t.dtype, t.shape, values(t)]);
    }
    expect(Object.is(values(loaded.tensors.get('numbers')!)[1], -0)).toBe(true);
    expect([...loaded.metadata]).toEqual([
      ['made by', 'test'],
      ['line\n', '"'],
    ]);
  });

  it('for a model, and for an object instead of a map', () => {
    const file = newFile();
    const [from, to] = [new nn.Linear(3, 2), new nn.Linear(3, 2)];
    io.saveSafetensors(file, from.stateDict());
    to.loadStateDict(io.loadSafetensors(file).tensors);
    expect(values(to.weight.detach())).toEqual(values(from.weight.detach()));
    io.saveSafetensors(file, { a: tensor([1, 2]) });
    expect([...io.loadSafetensors(file).tensors].map(([name, t]) => [name, values(t)])).toEqual([['a', [1, 2]]]);
    io.saveSafetensors(file, {});
    expect(io.loadSafetensors(file).tensors.size).toBe(0);
  });

  it('in the bytes that the format prescribes, aligned', () => {
    const file = newFile();
    io.saveSafetensors(
      file,
      { b: tensor([true], { dtype: 'bool' }), d: tensor([1], { dtype: 'float64' }) },
      { k: 'v' },
    );
    const header =
      '{"__metadata__":{"k":"v"},"d":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},"b":{"dtype":"BOOL","shape":[1],"data_offsets":[8,9]}}';
    const bytes = readFileSync(file);
    const length = Number(bytes.readBigUInt64LE());
    expect(length % 8).toBe(0);
    expect(bytes.subarray(8, 8 + length).toString()).toBe(header.padEnd(length));
    expect([...bytes.subarray(8 + length)]).toEqual([0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 1]);
  });

  it('reads another writer’s spacing and order of fields', () => {
    const header =
      ' {\n"x" : {"data_offsets":[ 4 , 8 ],\t"shape":[],"dtype":"F32"}, "\\u0061":{"shape":[1],"dtype":"I32","data_offsets":[0,4]}}  ';
    const { tensors } = io.loadSafetensors(fileOf(header, 8));
    expect([...tensors].map(([name, { dtype, shape }]) => [name, dtype, shape])).toEqual([
      ['a', 'int32', [1]],
      ['x', 'float32', []],
    ]);
  });
});

describe('a hostile file is refused with its name and the reason, before anything is allocated', () => {
  const x = (fields: object, name = 'x') =>
    JSON.stringify({ [name]: { dtype: 'F32', shape: [2], data_offsets: [0, 8], ...fields } });
  const two = (a: number[], b: number[]) =>
    JSON.stringify({
      a: { dtype: 'U8', shape: [4], data_offsets: a },
      b: { dtype: 'U8', shape: [4], data_offsets: b },
    });
  const raw = (offsets: string, shape = '[2]') => `{"x":{"dtype":"F32","shape":${shape},"data_offsets":${offsets}}}`;

  const hostile: [string, string, () => string][] = [
    [
      'empty',
      '0 bytes are too few',
      () => {
        const f = newFile();
        writeFileSync(f, '');
        return f;
      },
    ],
    [
      'seven bytes',
      '7 bytes are too few',
      () => {
        const f = newFile();
        writeFileSync(f, '1234567');
        return f;
      },
    ],
    ['a header longer than the file', 'a header of 3 bytes in a file of 10', () => fileOf('{}', 0, 3n)],
    ['a header of 2^64 - 1 bytes', 'a header of 18446744073709551615 bytes', () => fileOf('{}', 0, 2n ** 64n - 1n)],
    ['a header over the cap', 'more than 16777216', () => fileOf('{}', 2 ** 24, 2n ** 24n + 1n)],
    ['a header of no bytes', "expected '{'", () => fileOf('', 8)],
    ['no UTF-8', 'not UTF-8', () => fileOf(Buffer.from([0x7b, 0xff, 0x7d]))],
    ['a byte order mark', "expected '{'", () => fileOf('\ufeff{}')],
    ['no JSON', "expected '{'", () => fileOf('hello')],
    ['an array', "expected '{'", () => fileOf('[]')],
    ['an unfinished object', "expected '}'", () => fileOf('{"x":{"dtype":"F32"')],
    ['an unfinished string', 'expected the end of the string', () => fileOf('{"x')],
    ['a string that ends in a backslash', 'expected the end of the string', () => fileOf('{"x\\')],
    ['a bad escape', 'not a JSON string', () => fileOf('{"\\x":1}')],
    ['a control character in a name', 'not a JSON string', () => fileOf('{"a\nb":1}')],
    ['a trailing comma', "expected '\"'", () => fileOf('{"__metadata__":{},}')],
    ['text behind the header', 'expected nothing', () => fileOf('{} {}')],
    ['five million brackets', "expected '{'", () => fileOf(`{"x":${'['.repeat(5e6)}`)],
    ['three million nested objects', "unknown field 'x'", () => fileOf('{"x":'.repeat(3e6))],
    [
      'a name twice',
      "has the key 'x' twice",
      () => fileOf('{"x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"x":{}}'),
    ],
    [
      'a name twice, once escaped',
      "has the key 'x' twice",
      () => fileOf('{"x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"\\u0078":{}}'),
    ],
    ['a field twice', "has the key 'dtype' twice", () => fileOf('{"x":{"dtype":"F32","dtype":"F64"}}')],
    ['a metadata key twice', "has the key 'k' twice", () => fileOf('{"__metadata__":{"k":"1","k":"2"}}')],
    [
      '__proto__',
      "the name '__proto__' is not allowed",
      () => fileOf('{"__proto__":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'),
    ],
    ['constructor', "the name 'constructor' is not allowed", () => fileOf(x({}, 'constructor'), 8)],
    [
      '__proto__ in metadata',
      "the name '__proto__' is not allowed",
      () => fileOf('{"__metadata__":{"__proto__":"x"}}'),
    ],
    ['metadata that are no strings', "expected '\"'", () => fileOf('{"__metadata__":{"k":1}}')],
    ['metadata that are no object', "expected '{'", () => fileOf('{"__metadata__":"k"}')],
    ['an unknown field', "unknown field 'strides'", () => fileOf(x({ strides: 1 }), 8)],
    ['a missing field', 'lacks dtype, shape or data_offsets', () => fileOf('{"x":{"dtype":"F32","shape":[2]}}')],
    ['an unknown dtype', "dtype 'F8_E5M2'", () => fileOf(x({ dtype: 'F8_E5M2' }), 8)],
    ['a dtype that is no string', "expected '\"'", () => fileOf(x({ dtype: 1 }), 8)],
    ['a dtype from Object.prototype', "dtype 'toString'", () => fileOf(x({ dtype: 'toString' }), 8)],
    ['a fraction', 'a whole number', () => fileOf(raw('[0,8.0]'), 8)],
    ['an exponent', 'a whole number', () => fileOf(raw('[0,8e0]'), 8)],
    ['a negative offset', 'a whole number', () => fileOf(raw('[-8,0]'), 8)],
    ['a leading zero', 'a whole number', () => fileOf(raw('[0,08]'), 8)],
    ['2^53 + 1', 'a whole number', () => fileOf(raw('[0,9007199254740993]'), 8)],
    ['a million digits', 'a whole number', () => fileOf(raw(`[0,${'9'.repeat(1e6)}]`), 8)],
    ['null', 'a whole number', () => fileOf(raw('[0,null]'), 8)],
    ['nested sizes', 'a whole number', () => fileOf(raw('[0,8]', '[[2]]'), 8)],
    ['one offset', "data_offsets of 'x' are [8]", () => fileOf(raw('[8]'), 8)],
    ['three offsets', 'are [0,8,8]', () => fileOf(raw('[0,8,8]'), 8)],
    ['offsets in reverse', 'are [8,0]', () => fileOf(raw('[8,0]'), 8)],
    ['nine dimensions', '9 dimensions', () => fileOf(raw('[0,8]', '[1,1,1,1,1,1,1,1,2]'), 8)],
    ['a product of sizes that overflows', 'elements', () => fileOf(raw('[0,8]', '[4294967296,4294967296]'), 8)],
    ['an overflow beside a zero', 'elements', () => fileOf(raw('[0,0]', '[9007199254740991,9007199254740991,0]'))],
    [
      'sizes beyond the file',
      'is F32 [1000000000], 4000000000 bytes, but has 8',
      () => fileOf(raw('[0,8]', '[1000000000]'), 8),
    ],
    [
      'offsets beyond the file',
      'truncated: the tensors need 4000000000 bytes, the file has 8',
      () => fileOf(raw('[0,4000000000]', '[1000000000]'), 8),
    ],
    ['a hole at the beginning', "bytes 0 to 4, before 'x'", () => fileOf(raw('[4,12]'), 12)],
    ['a hole between', 'bytes 4 to 5', () => fileOf(two([0, 4], [5, 9]), 9)],
    ['an overlap', "'b' begins at byte 3, inside", () => fileOf(two([0, 4], [3, 7]), 7)],
    ['two tensors in the same bytes', "'b' begins at byte 0, inside", () => fileOf(two([0, 4], [0, 4]), 4)],
    ['bytes at the end', 'the last 1 bytes belong to no tensor', () => fileOf(x({}), 9)],
    ['data but no tensors', 'the last 5 bytes', () => fileOf('{}', 5)],
    ['truncated data', 'truncated', () => fileOf(x({}), 7)],
  ];

  it.each(hostile)('%s', (_, reason, make) => {
    const file = make();
    const before = memoryStats().liveBytes;
    const error = (() => {
      try {
        io.loadSafetensors(file);
      } catch (thrown) {
        return thrown as FormatError;
      }
      return undefined;
    })();
    expect(error).toBeInstanceOf(FormatError);
    expect(error!.code).toBe('ERR_FORMAT');
    expect(error!.message).toContain(file);
    expect(error!.message).toContain(reason);
    expect(error!.message.length).toBeLessThan(500);
    expect(memoryStats().liveBytes).toBeLessThanOrEqual(before);
  });

  it('a bool of 2', () => {
    const file = fileOf('{"x":{"dtype":"BOOL","shape":[1],"data_offsets":[0,1]}}', 1);
    const bytes = readFileSync(file);
    bytes[bytes.length - 1] = 2;
    writeFileSync(file, bytes);
    expect(() => io.loadSafetensors(file)).toThrow("'x' has a bool that is neither 0 nor 1");
  });

  it('an exception of the system stays one', () => {
    expect(() => io.loadSafetensors(newFile())).toThrow(expect.objectContaining({ code: 'ENOENT' }));
    expect(() => io.loadSafetensors(directory)).toThrow(expect.objectContaining({ code: 'EISDIR' }));
  });

  it('mutated files load or give a FormatError, nothing else', () => {
    const file = newFile();
    io.saveSafetensors(
      file,
      {
        weight: tensor([
          [1, 2],
          [3, 4],
        ]),
        flags: tensor([1, 0], { dtype: 'bool' }),
      },
      { k: 'v' },
    );
    const original = readFileSync(file);
    let refused = 0;
    const edit = fc.record({
      at: fc.nat(original.length - 1),
      byte: fc.constantFrom(...Buffer.from('{}[]",:019-.e\\'), 0, 255),
      cut: fc.nat(3),
    });
    fc.assert(
      fc.property(fc.array(edit, { minLength: 1, maxLength: 4 }), (edits) => {
        let bytes = Buffer.from(original);
        for (const { at, byte, cut } of edits) {
          if (at < bytes.length) bytes[at] = byte;
          if (cut === 0) bytes = bytes.subarray(0, at);
        }
        writeFileSync(file, bytes);
        try {
          io.loadSafetensors(file);
        } catch (error) {
          expect(error).toBeInstanceOf(FormatError);
          refused++;
        }
      }),
      { numRuns: 1000 },
    );
    expect(refused).toBeGreaterThan(250);
  });
});

describe('saving', () => {
  it('refuses names that it would refuse to read', () => {
    const file = newFile();
    expect(() => io.saveSafetensors(file, new Map([['__proto__', tensor([1])]]))).toThrow("'__proto__' is not allowed");
    expect(() => io.saveSafetensors(file, { __metadata__: tensor([1]) })).toThrow(
      "the name '__metadata__' is the format's own",
    );
    expect(() => io.saveSafetensors(file, { x: 3 as unknown as Tensor })).toThrow("tensor 'x' is 3");
    expect(existsSync(file)).toBe(false);
  });

  it('that fails leaves the old file whole and no other', () => {
    const folder = mkdtempSync(path.join(directory, 'failing-'));
    const file = path.join(folder, 'weights');
    writeFileAtomic(file, [Buffer.from('old')]);
    const failing = function* (): Generator<Uint8Array> {
      yield Buffer.from('half of the n');
      throw new Error('disk on fire');
    };
    expect(() => writeFileAtomic(file, failing())).toThrow('disk on fire');
    expect(readFileSync(file, 'utf8')).toBe('old');
    expect(readdirSync(folder)).toEqual(['weights']);

    mkdirSync(path.join(folder, 'directory', 'in the way'), { recursive: true });
    expect(() => writeFileAtomic(path.join(folder, 'directory'), [Buffer.from('x')])).toThrow(/EISDIR|ENOTEMPTY|EPERM/);
    expect(readdirSync(folder).sort()).toEqual(['directory', 'weights']);
    expect(() => writeFileAtomic(path.join(folder, 'nowhere', 'x'), [])).toThrow(
      expect.objectContaining({ code: 'ENOENT' }),
    );
  });

  it('tells of a disk that is full', () => {
    // The kernel refuses the write after 64 KiB, as a full disk does.
    const script = `
      process.on('SIGXFSZ', () => {});
      const { writeFileAtomic } = await import(${JSON.stringify(path.resolve('lib/io/atomic-write.ts'))});
      try { writeFileAtomic(process.argv[1], [Buffer.from('new '), Buffer.alloc(1 << 20)]); } catch (error) { console.log(error.code); }`;
    const folder = mkdtempSync(path.join(directory, 'full-'));
    const file = path.join(folder, 'weights');
    writeFileAtomic(file, [Buffer.from('old')]);
    const command = 'ulimit -f 64 && exec "$0" --import tsx --input-type=module -e "$1" "$2"';
    const { stdout, stderr } = spawnSync('sh', ['-c', command, process.execPath, script, file], { encoding: 'utf8' });
    expect([stdout.trim(), stderr]).toEqual(['EFBIG', '']);
    expect(readFileSync(file, 'utf8')).toBe('old');
    expect(readdirSync(folder)).toEqual(['weights']);
  });

  it('removes what killed writers left, and nothing else', () => {
    const folder = mkdtempSync(path.join(directory, 'orphans-'));
    const { pid } = spawnSync(process.execPath, ['-e', '']);
    const dead = `weights.tmp-${pid}-0123abcd`;
    const earlier = `weights.tmp-${process.pid}-00000000`;
    const spared = [
      `other.tmp-${pid}-0123abcd`,
      `weights.tmp-${process.ppid}-0123abcd`,
      `weights.tmp-${process.pid}-11111111`,
      'weights.tmp-x',
    ];
    for (const name of [dead, earlier, ...spared]) writeFileSync(path.join(folder, name), '');
    utimesSync(path.join(folder, earlier), 1, 1);
    writeFileAtomic(path.join(folder, 'weights'), [Buffer.from('new')]);
    expect(readdirSync(folder).sort()).toEqual(['weights', ...spared].sort());
  });

  it.skipIf(process.getuid?.() === 0)('tells of a directory that is read-only', () => {
    const folder = mkdtempSync(path.join(directory, 'read-only-'));
    chmodSync(folder, 0o500);
    expect(() => io.saveSafetensors(path.join(folder, 'x'), {})).toThrow(expect.objectContaining({ code: 'EACCES' }));
    chmodSync(folder, 0o700);
  });
});
