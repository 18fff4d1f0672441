// Bench layer: onnxruntime-node. It runs models and trains none, so only products are compared: each is a model of one
// node, written here in the few fields of the format that it needs.
import { optional, type Rival, type Sizes } from './rival.ts';

interface Runtime {
  InferenceSession: {
    create(
      model: Uint8Array,
      options: object,
    ): Promise<{ run(feeds: Record<string, unknown>): Promise<Record<string, { data: Float32Array }>> }>;
  };
  Tensor: new (type: string, values: Float32Array, shape: readonly number[]) => unknown;
}

const FLOAT = 1;

// Protocol buffers: a field is its number and kind, then a varint, or a length and bytes.
function varint(value: number): number[] {
  const bytes: number[] = [];
  for (; value > 127; value = Math.floor(value / 128)) bytes.push((value % 128) | 128);
  return [...bytes, value];
}
const integer = (field: number, value: number): number[] => [...varint(field * 8), ...varint(value)];
const block = (field: number, bytes: readonly number[]): number[] => [
  ...varint(field * 8 + 2),
  ...varint(bytes.length),
  ...bytes,
];
const text = (field: number, value: string): number[] => block(field, [...new TextEncoder().encode(value)]);

const shapeOf = (batch: number, rows: number, columns: number): number[] =>
  batch > 1 ? [batch, rows, columns] : [rows, columns];

/** ValueInfoProto: a name, and the type and shape of a tensor. */
function value(name: string, shape: readonly number[]): number[] {
  const dims = shape.flatMap((size) => block(1, integer(1, size)));
  return [...text(1, name), ...block(2, block(1, [...integer(1, FLOAT), ...block(2, dims)]))];
}

/** ModelProto of c = MatMul(a, b). */
function model({ batch, m, n, k }: Sizes): Uint8Array {
  const graph = [
    ...block(1, [...text(1, 'a'), ...text(1, 'b'), ...text(2, 'c'), ...text(4, 'MatMul')]),
    ...text(2, 'product'),
    ...block(11, value('a', shapeOf(batch, m, k))),
    ...block(11, value('b', shapeOf(batch, k, n))),
    ...block(12, value('c', shapeOf(batch, m, n))),
  ];
  return Uint8Array.from([...integer(1, 8), ...block(7, graph), ...block(8, integer(2, 17))]);
}

export async function onnx(): Promise<Rival | undefined> {
  const runtime = await optional<Runtime>('onnxruntime-node');
  if (!runtime) return undefined;
  return {
    name: 'onnxruntime-node',
    largest: 1024 ** 3,
    multiply: async (sizes, a, b) => {
      const options = { intraOpNumThreads: 1, interOpNumThreads: 1, executionMode: 'sequential', logSeverityLevel: 3 };
      const session = await runtime.InferenceSession.create(model(sizes), options);
      const { batch, m, n, k } = sizes;
      const feeds = {
        a: new runtime.Tensor('float32', a, shapeOf(batch, m, k)),
        b: new runtime.Tensor('float32', b, shapeOf(batch, k, n)),
      };
      return {
        run: async () => void (await session.run(feeds)),
        result: async () => (await session.run(feeds)).c!.data,
      };
    },
  };
}
