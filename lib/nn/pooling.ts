// Pooling layers: each calls the function of the same name. Layer nn: no mathematics here.
import { avgPool2d, maxPool2d } from '../ops/index.ts';
import { unaryModule } from './function-module.ts';

export class MaxPool2d extends unaryModule(maxPool2d) {}
export class AvgPool2d extends unaryModule(avgPool2d) {}
