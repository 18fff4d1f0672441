// The loss modules: each calls the function of the same name with the options given to its constructor. Layer nn.
import {
  binaryCrossEntropy,
  binaryCrossEntropyWithLogits,
  cosineSimilarity,
  crossEntropy,
  huberLoss,
  klDiv,
  l1Loss,
  mseLoss,
  nllLoss,
  smoothL1Loss,
} from '../ops/index.ts';
import { binaryModule } from './function-module.ts';

export class MSELoss extends binaryModule(mseLoss) {}
export class L1Loss extends binaryModule(l1Loss) {}
export class SmoothL1Loss extends binaryModule(smoothL1Loss) {}
export class HuberLoss extends binaryModule(huberLoss) {}
export class CrossEntropyLoss extends binaryModule(crossEntropy) {}
export class NLLLoss extends binaryModule(nllLoss) {}
export class BCELoss extends binaryModule(binaryCrossEntropy) {}
export class BCEWithLogitsLoss extends binaryModule(binaryCrossEntropyWithLogits) {}
export class KLDivLoss extends binaryModule(klDiv) {}
export class CosineSimilarity extends binaryModule(cosineSimilarity) {}
