// What is open: an example of the server, run with the inputs given, or a trace from a file; and how that changes.
import { useEffect, useState } from 'preact/hooks';
import { MOST_CHARACTERS, parseTrace } from '../../lib/viz/trace-format.ts';
import {
  examples as askExamples,
  type Description,
  type Given,
  namedTrace,
  type Outcome,
  run,
  type Training,
} from './api.ts';
import { type Walk, walkOf } from './walk.ts';

export interface Opened {
  /** Another one: the walk begins again. The same one with other inputs: it stays where it is. */
  readonly key: number;
  readonly title: string;
  readonly walk: Walk;
  readonly example: Description | null;
  readonly training: Training | null;
}

interface State {
  readonly opened: Opened | null;
  readonly examples: readonly Description[];
  readonly given: Given;
  readonly error: string | null;
  /** Whether an example is training. */
  readonly busy: boolean;
}

const valuesOf = ({ inputs }: Description): Given =>
  Object.fromEntries(Object.entries(inputs).map(([name, { value }]) => [name, value]));

/** Iterations between two pictures. */
const STRIDE = 5;

export class Source {
  state: State = { opened: null, examples: [], given: {}, error: null, busy: false };
  changed: () => void = () => undefined;
  /** Answers that are overtaken by another question are not shown. */
  #asked = 0;
  #key = 0;

  /** What the page begins with. */
  async begin(): Promise<void> {
    await this.#attempt(
      () => Promise.all([askExamples(), namedTrace()]),
      ([examples, named]) => {
        this.#set({ examples });
        if (named !== null) this.#show(named.name, { trace: named.trace, training: null }, null);
      },
    );
    const [first] = this.state.examples;
    if (this.state.opened === null && first !== undefined) await this.openExample(first.id);
  }

  async openExample(id: string): Promise<void> {
    const example = this.state.examples.find((each) => each.id === id);
    this.stop();
    if (example !== undefined) await this.#run(example, valuesOf(example), false);
  }

  async openFile(file: File): Promise<void> {
    this.stop();
    await this.#attempt(
      async () => {
        try {
          if (file.size > 2 * MOST_CHARACTERS) throw new Error(`${file.size} bytes are more than a trace may have.`);
          return parseTrace(await file.text());
        } catch (failed) {
          throw new Error(`${file.name}: ${(failed as Error).message}`);
        }
      },
      (trace) => this.#show(file.name, { trace, training: null }, null),
    );
  }

  /** Computes the example again. */
  async change(given: Given): Promise<void> {
    const example = this.state.opened?.example;
    this.#set({ given });
    if (example != null) await this.#run(example, given, true);
  }

  async train(): Promise<void> {
    this.#set({ busy: true });
    for (;;) {
      const { busy, given, opened } = this.state;
      const name = opened?.example?.trains;
      const input = name == null ? undefined : opened!.example!.inputs[name];
      if (!busy || name == null || input?.kind !== 'number') return;
      const done = given[name] as number;
      if (done >= input.max) return this.stop();
      await this.change({ ...given, [name]: Math.min(input.max, done + STRIDE) });
      await new Promise(requestAnimationFrame);
    }
  }

  async restart(): Promise<void> {
    this.stop();
    const name = this.state.opened?.example?.trains;
    if (name != null) await this.change({ ...this.state.given, [name]: 0 });
  }

  stop(): void {
    this.#set({ busy: false });
  }

  dismiss(): void {
    this.#set({ error: null });
  }

  #set(part: Partial<State>): void {
    this.state = { ...this.state, ...part };
    this.changed();
  }

  async #attempt<T>(work: () => Promise<T>, use: (result: T) => void): Promise<void> {
    const turn = ++this.#asked;
    try {
      const result = await work();
      if (turn !== this.#asked) return;
      use(result);
      this.#set({ error: null });
    } catch (failed) {
      if (turn === this.#asked) this.#set({ error: (failed as Error).message, busy: false });
    }
  }

  #run(example: Description, given: Given, again: boolean): Promise<void> {
    return this.#attempt(
      () => run(example.id, given),
      (outcome) => {
        this.#set({ given });
        this.#show(example.title, outcome, example, again);
      },
    );
  }

  #show(title: string, { trace, training }: Outcome, example: Description | null, again = false): void {
    if (!again) this.#key++;
    this.#set({ opened: { key: this.#key, title, walk: walkOf(trace), example, training } });
  }
}

export function useSource(): Source {
  const [source] = useState(() => new Source());
  const [, draw] = useState({});
  useEffect(() => {
    source.changed = () => draw({});
    void source.begin();
    const over = (event: DragEvent): void => event.preventDefault();
    // A file that is let go anywhere on the page.
    const drop = (event: DragEvent): void => {
      event.preventDefault();
      const file = event.dataTransfer?.files[0];
      if (file !== undefined) void source.openFile(file);
    };
    addEventListener('dragover', over);
    addEventListener('drop', drop);
    return () => {
      removeEventListener('dragover', over);
      removeEventListener('drop', drop);
    };
  }, [source]);
  return source;
}
