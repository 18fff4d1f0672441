// The namespace `data`. Nothing is defined here.
export { collate } from './collate.ts';
export { type Collated, type Dataset, TensorDataset } from './dataset.ts';
export { DataLoader, type DataLoaderOptions, type DataLoaderState } from './loader.ts';
