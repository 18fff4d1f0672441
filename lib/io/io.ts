// The namespace `io`. Nothing is defined here.
export { loadSafetensors, type SafetensorsFile, saveSafetensors } from './safetensors.ts';
export { SummaryWriter, type SummaryWriterOptions } from './tensorboard.ts';
