// The namespace `random`. Nothing is defined here.
export { type NumpyLegacy, numpyLegacy } from './numpy-legacy.ts';
