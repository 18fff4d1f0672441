// The namespace `nn`. Nothing is defined here.
export * from './activations.ts';
export { ModuleList, Sequential } from './containers.ts';
export { Dropout } from './dropout.ts';
export { Embedding } from './embedding.ts';
export * as init from './init.ts';
export { Linear } from './linear.ts';
export * from './losses.ts';
export { type AnyModule, Module, type StateDict } from './module.ts';
export { LayerNorm, RMSNorm } from './norm.ts';
export { Parameter } from './parameter.ts';
export { Flatten, Identity } from './shape-modules.ts';
export * as utils from './utils.ts';
