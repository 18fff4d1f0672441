// The service: routes, checks of what comes in, and an end that leaves nothing behind.
import Fastify, { type FastifyInstance, type FastifyServerOptions } from 'fastify';
import { CLASSES, PIXELS } from '../mnist/mnist.ts';
import { saveCheckpoint } from './checkpoint.ts';
import { BATCH, type Example, type Learner } from './learner.ts';
import { Metrics } from './metrics.ts';
import type { Trainer } from './trainer.ts';

export interface Parts {
  learner: Learner;
  trainer: Trainer;
  /** Where the state is kept, and seconds between two saves. */
  checkpoint: { file: string; seconds: number };
  /** More calls than these in flight are refused: who waits longer has gone. */
  mostInFlight?: number;
}

/** Milliseconds for a request to arrive in: who dawdles shall not hold up the end. */
const REQUEST_TIMEOUT = 10_000;

const pixels = {
  description: '28 rows of 28 pixels, 0 for paper, 255 for ink',
  type: 'array',
  items: { type: 'integer', minimum: 0, maximum: 255 },
  minItems: PIXELS,
  maxItems: PIXELS,
};
const label = { type: 'integer', minimum: 0, maximum: CLASSES - 1 };
const object = (properties: object) => ({
  type: 'object',
  properties,
  required: Object.keys(properties),
  additionalProperties: false,
});

const PREDICT = { body: object({ pixels }) };
const LEARN = {
  body: object({ examples: { type: 'array', items: object({ pixels, label }), minItems: 1, maxItems: BATCH } }),
};

export function createServer(service: Parts, options: FastifyServerOptions = {}): FastifyInstance {
  // A string of digits is no number here, and a misspelt property no surplus to be dropped.
  const ajv = { customOptions: { coerceTypes: false, removeAdditional: false } } as const;
  const app: FastifyInstance = Fastify({ requestTimeout: REQUEST_TIMEOUT, ...options, ajv });
  addModelRoutes(app, service);
  addWatchRoutes(app, service);
  saveRegularly(app, service);
  return app;
}

function addModelRoutes(app: FastifyInstance, { learner, mostInFlight = 256 }: Parts): void {
  app.register(async (model) => {
    model.addHook('preValidation', async (_request, reply) => {
      if (learner.inFlight < mostInFlight) return;
      reply.code(503).header('retry-after', '1');
      throw new Error(`${learner.inFlight} calls are in flight. Try again later.`);
    });

    model.post<{ Body: { pixels: number[] } }>('/predict', { schema: PREDICT }, ({ body }) =>
      learner.predict(body.pixels),
    );

    model.post<{ Body: { examples: Example[] } }>('/learn', { schema: LEARN }, async ({ body }) => {
      await learner.learn(body.examples);
      return { steps: learner.steps, ...learner.average };
    });
  });
}

function addWatchRoutes(app: FastifyInstance, { learner, trainer }: Parts): void {
  const metrics = new Metrics(learner, trainer);
  app.addHook('onClose', async () => metrics.close());
  app.addHook('onResponse', async (request, reply) => {
    const { method, routeOptions } = request;
    const labels = { method, route: routeOptions.url ?? 'none', status: reply.statusCode };
    metrics.requests.observe(labels, reply.elapsedTime / 1000);
  });

  app.get('/metrics', async (_request, reply) => {
    reply.type(metrics.registry.contentType);
    return metrics.registry.metrics();
  });

  app.get('/health', async (_request, reply) => {
    const { failure, running } = trainer;
    if (failure !== null) reply.code(503);
    const status = failure === null ? 'ok' : `training failed: ${failure.message}`;
    return { status, training: running, steps: learner.steps };
  });
}

/** Saves while there is news, and at the end: when the last request is answered and training has stopped. */
function saveRegularly(app: FastifyInstance, { learner, trainer, checkpoint }: Parts): void {
  let saved = learner.steps;
  const save = (): void => {
    if (learner.steps === saved) return;
    saveCheckpoint(checkpoint.file, learner);
    saved = learner.steps;
  };
  const timer = setInterval(() => {
    try {
      save();
    } catch (error) {
      app.log.error(error, 'no checkpoint could be saved');
    }
  }, checkpoint.seconds * 1000);
  app.addHook('onClose', async () => {
    clearInterval(timer);
    await trainer.stop();
    save();
  });
}
