// The parts of the service put together: what learns, what trains it in the background, and the server before both.
import { existsSync } from 'node:fs';
import type { FastifyInstance, FastifyServerOptions } from 'fastify';
import { manualSeed } from '../../lib/index.ts';
import type { Mnist } from '../mnist/mnist.ts';
import { loadCheckpoint } from './checkpoint.ts';
import { Learner } from './learner.ts';
import { createServer } from './server.ts';
import { Trainer } from './trainer.ts';

export interface ServiceOptions {
  /** The file that keeps the state. If it is there, the service goes on from it. */
  checkpoint: string;
  /** Seconds between two saves. */
  every: number;
  /** Of the first weights, and of the digits drawn to learn from. */
  seed: number;
}

export interface Service {
  app: FastifyInstance;
  learner: Learner;
  trainer: Trainer;
}

/** Neither listens nor trains yet. */
export function createService(digits: Mnist, options: ServiceOptions, server: FastifyServerOptions = {}): Service {
  const { checkpoint, every, seed } = options;
  manualSeed(seed);
  const learner = new Learner(digits, seed);
  if (existsSync(checkpoint)) loadCheckpoint(checkpoint, learner);
  const trainer = new Trainer(learner);
  const app = createServer({ learner, trainer, checkpoint: { file: checkpoint, seconds: every } }, server);
  return { app, learner, trainer };
}
