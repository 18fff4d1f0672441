// The activation modules: each calls the function of the same name. Layer nn: no mathematics here.
import {
  elu,
  gelu,
  hardtanh,
  leakyRelu,
  logSigmoid,
  logSoftmax,
  mish,
  relu,
  relu6,
  selu,
  sigmoid,
  silu,
  softmax,
  softplus,
  softsign,
  tanh,
} from '../ops/index.ts';
import { unaryModule } from './function-module.ts';

export class ReLU extends unaryModule(relu) {}
export class ReLU6 extends unaryModule(relu6) {}
export class LeakyReLU extends unaryModule(leakyRelu) {}
export class ELU extends unaryModule(elu) {}
export class SELU extends unaryModule(selu) {}
export class GELU extends unaryModule(gelu) {}
export class SiLU extends unaryModule(silu) {}
export class Mish extends unaryModule(mish) {}
export class Softplus extends unaryModule(softplus) {}
export class Softsign extends unaryModule(softsign) {}
export class LogSigmoid extends unaryModule(logSigmoid) {}
export class Hardtanh extends unaryModule(hardtanh) {}
export class Sigmoid extends unaryModule(sigmoid) {}
export class Tanh extends unaryModule(tanh) {}
export class Softmax extends unaryModule(softmax) {}
export class LogSoftmax extends unaryModule(logSoftmax) {}
