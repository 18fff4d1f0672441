// Protobuf on the wire, written and never read: the kinds of field that TensorBoard's messages have. Layer io; knows no
// message. A message is its fields one after the other, in any order.

const VARINT = 0;
const FIXED64 = 1;
const BYTES = 2;
const FIXED32 = 5;

/** Seven bits a byte, the lowest first; a negative number as its 64 bits. */
function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = BigInt.asUintN(64, BigInt(value));
  for (; rest > 127n; rest >>= 7n) bytes.push(Number(rest & 127n) | 128);
  return Buffer.from([...bytes, Number(rest)]);
}

const field = (number: number, type: number, ...content: readonly Uint8Array[]): Buffer =>
  Buffer.concat([varint(number * 8 + type), ...content]);

/** A safe integer as int32, int64, bool or an enum. */
export const int = (number: number, value: number): Buffer => field(number, VARINT, varint(value));

/** Rounded to float32: what is larger than any becomes infinite. */
export function float(number: number, value: number): Buffer {
  const bits = Buffer.alloc(4);
  bits.writeFloatLE(value);
  return field(number, FIXED32, bits);
}

export function double(number: number, value: number): Buffer {
  const bits = Buffer.alloc(8);
  bits.writeDoubleLE(value);
  return field(number, FIXED64, bits);
}

/** A repeated field of doubles, packed. */
export function doubles(number: number, values: readonly number[]): Buffer {
  const bits = Buffer.alloc(8 * values.length);
  values.forEach((value, i) => {
    bits.writeDoubleLE(value, 8 * i);
  });
  return field(number, BYTES, varint(bits.length), bits);
}

export const text = (number: number, value: string): Buffer => message(number, Buffer.from(value));

/** A message inside a message, or bytes. */
export const message = (number: number, ...fields: readonly Uint8Array[]): Buffer => {
  const content = Buffer.concat(fields);
  return field(number, BYTES, varint(content.length), content);
};
