// The server of the playground, for this machine only: a fixed table of files and three calls. Layer cli; knows no
// example. No path comes from a URL, and requests for another host are refused: its name may lead here (DNS rebinding).
import { readFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { ArgumentError, ChainruleError } from '../errors.ts';
import type { Trace } from '../viz/trace-format.ts';
import { describeExamples, runExample } from './examples.ts';

/** Two levels above this file, be it in lib/ or in dist/. */
const PAGE = new URL('../../dist/playground/', import.meta.url);
const FILES: readonly [url: string, file: string, type: string][] = [
  ['/', 'index.html', 'text/html; charset=utf-8'],
  ['/playground.js', 'playground.js', 'text/javascript; charset=utf-8'],
  ['/playground.css', 'playground.css', 'text/css; charset=utf-8'],
  ['/favicon.svg', 'favicon.svg', 'image/svg+xml'],
];
const JSON_TYPE = 'application/json; charset=utf-8';
const LOOPBACK = '127.0.0.1';
const MOST_BODY = 64 * 1024;

const HEADERS = {
  'content-security-policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'cross-origin-resource-policy': 'same-origin',
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cache-control': 'no-store',
};

export interface PlaygroundOptions {
  /** 0: any that is free. */
  readonly port: number;
  /** What the page opens with, instead of an example. */
  readonly trace: { readonly name: string; readonly trace: Trace } | null;
}

interface Answer {
  readonly status: number;
  readonly type: string;
  readonly body: string | Buffer;
}
type Handler = (request: IncomingMessage) => Answer | Promise<Answer>;

/** What is wrong with a request. */
class Refusal extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

/** Serves the page until the server is closed. @throws ArgumentError when the page is not built or the port is taken */
export async function serve({ port, trace }: PlaygroundOptions): Promise<{ server: Server; address: string }> {
  const routes = routesOf(trace);
  const server = createServer((request, response) => void respond(routes, request, response));
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) => reject(new ArgumentError(`playground: port ${port}: ${error.message}`)));
    server.listen(port, LOOPBACK, resolve);
  });
  return { server, address: `http://${LOOPBACK}:${(server.address() as AddressInfo).port}/` };
}

function routesOf(trace: PlaygroundOptions['trace']): ReadonlyMap<string, Handler> {
  const routes = new Map<string, Handler>();
  for (const [url, file, type] of FILES) {
    const answer = { status: 200, type, body: page(file) };
    routes.set(`GET ${url}`, () => answer);
  }
  const given = json(trace);
  routes.set('GET /api/trace', () => given);
  routes.set('GET /api/examples', () => json(describeExamples()));
  routes.set('POST /api/run', async (request) => json(runExample(await bodyOf(request))));
  return routes;
}

function page(file: string): Buffer {
  try {
    return readFileSync(new URL(file, PAGE));
  } catch (cause) {
    throw new ArgumentError(`playground: the page is not built: run npm run build:playground.`, { cause });
  }
}

const json = (value: unknown, status = 200): Answer => ({ status, type: JSON_TYPE, body: JSON.stringify(value) });

async function respond(
  routes: ReadonlyMap<string, Handler>,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const { status, type, body } = await answerTo(routes, request).catch(refused);
  response.writeHead(status, { ...HEADERS, 'content-type': type, 'content-length': Buffer.byteLength(body) });
  response.end(body);
}

async function answerTo(routes: ReadonlyMap<string, Handler>, request: IncomingMessage): Promise<Answer> {
  checkHost(request);
  const handler = routes.get(`${request.method} ${request.url}`);
  if (handler === undefined) throw new Refusal(404, 'There is nothing here.');
  return handler(request);
}

function refused(error: unknown): Answer {
  if (error instanceof Refusal) return json({ error: error.message }, error.status);
  if (error instanceof ChainruleError) return json({ error: error.message }, 400);
  console.error(error);
  return json({ error: 'The server failed; its terminal says how.' }, 500);
}

/** Only this machine's names, and only pages of this server. */
function checkHost({ headers, socket }: IncomingMessage): void {
  // A URL leaves out the port that is the default, and so do clients.
  const own = [LOOPBACK, 'localhost'].map((name) => new URL(`http://${name}:${socket.localPort}`).host);
  if (!own.includes(headers.host ?? '')) throw new Refusal(403, `Ask for ${own.join(' or ')}.`);
  const { origin } = headers;
  if (origin !== undefined && !own.some((host) => origin === `http://${host}`)) {
    throw new Refusal(403, 'Pages of other servers may not ask.');
  }
}

async function bodyOf(request: IncomingMessage): Promise<unknown> {
  const { 'content-type': type = '', 'content-length': length } = request.headers;
  // Pages of other servers cannot send this type without asking first.
  if (!/^application\/json\b/.test(type)) throw new Refusal(415, 'Send JSON.');
  // Node gives no more of a body than it announces.
  if (length === undefined) throw new Refusal(411, 'Say how long it is.');
  if (Number(length) > MOST_BODY) throw new Refusal(413, `${length} bytes are more than ${MOST_BODY}.`);
  const parts: Buffer[] = [];
  for await (const part of request as AsyncIterable<Buffer>) parts.push(part);
  try {
    return JSON.parse(Buffer.concat(parts).toString('utf8'));
  } catch (error) {
    throw new Refusal(400, `Not JSON: ${(error as Error).message}`);
  }
}
