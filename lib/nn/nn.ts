// The namespace `nn`. Nothing is defined here.
export * from './activations.ts';
export { MultiheadAttention, TransformerEncoderLayer } from './attention.ts';
export { ModuleList, Sequential } from './containers.ts';
export { Conv1d, Conv2d } from './convolution.ts';
export { Dropout } from './dropout.ts';
export { Embedding } from './embedding.ts';
export * as init from './init.ts';
export { Linear } from './linear.ts';
export * from './losses.ts';
export { type AnyModule, Module, type StateDict } from './module.ts';
export { BatchNorm1d, BatchNorm2d, GroupNorm, LayerNorm, RMSNorm } from './norm.ts';
export { Parameter } from './parameter.ts';
export { AvgPool2d, MaxPool2d } from './pooling.ts';
export { GRU, LSTM, RNN } from './recurrent.ts';
export { Flatten, Identity } from './shape-modules.ts';
export * as utils from './utils.ts';
