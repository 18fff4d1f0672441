// The namespace `optim.lrScheduler`. Nothing is defined here.
export {
  CosineAnnealingLR,
  type CosineAnnealingLROptions,
  ExponentialLR,
  type ExponentialLROptions,
  LinearLR,
  type LinearLROptions,
  MultiStepLR,
  type MultiStepLROptions,
  StepLR,
  type StepLROptions,
} from './decays.ts';
export { OneCycleLR, type OneCycleLROptions } from './one-cycle.ts';
export { ReduceLROnPlateau, type ReduceLROnPlateauOptions, type ReduceLROnPlateauState } from './plateau.ts';
export { LRScheduler, type Scheduled, Scheduler, type SchedulerState } from './scheduler.ts';
