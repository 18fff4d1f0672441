// The namespace `io`. Nothing is defined here.
export { type Metric, MetricsLog, readMetrics } from './metrics-log.ts';
export { loadSafetensors, type SafetensorsFile, saveSafetensors } from './safetensors.ts';
export { SummaryWriter, type SummaryWriterOptions } from './tensorboard.ts';
