// A web service that reads handwritten digits, and learns to read them better while it serves: `npm run service`, or
// `npm run service -- --help`. It ends on SIGTERM or Ctrl-C with its state saved, and goes on from there when it is
// started again.
//
//   POST /predict  { pixels: 784 numbers from 0 to 255 }              answers { digit, probabilities }
//   POST /learn    { examples: [{ pixels, label }, ...] }, up to 64   answers { steps, loss, accuracy }
//   GET  /health   whether it is well, and trains; its steps
//   GET  /metrics  for Prometheus: requests, event loop, training, queue
import { LogController } from 'fastify';
import { prepareOutput, runMain } from '../command-line.ts';
import { loadMnist } from '../mnist/mnist.ts';
import { parseOptions, USAGE } from './options.ts';
import { createService } from './service.ts';

async function main(args: string[]): Promise<void> {
  const options = parseOptions(args);
  if (options.help) return console.log(USAGE);
  prepareOutput(options.checkpoint, '--checkpoint');

  const logController = new LogController({ disableRequestLogging: true });
  const { app, learner, trainer } = createService(loadMnist('train'), options, { logger: true, logController });
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, async () => {
      app.log.info(`${signal}: stopping`);
      await app.close();
      app.log.info(`stopped after step ${learner.steps}`);
    });
  }
  await app.listen({ port: options.port, host: options.host });
  if (options.train) trainer.start();
  app.log.info(`at step ${learner.steps}, ${options.train ? 'training' : 'not training'} in the background`);
}

await runMain(main, USAGE);
