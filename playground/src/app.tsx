// The page: what is open, where the walk is, and which parts show it.
import { useCallback, useEffect, useMemo, useState } from 'preact/hooks';
import { TrainingView } from './boundary.tsx';
import { Lanes } from './charts.tsx';
import { GraphView } from './graph.tsx';
import { Inputs } from './inputs.tsx';
import { Inspector, told } from './inspector.tsx';
import { type Source, useSource } from './source.ts';
import { NodeList, Transport, useKeys, type Walking } from './transport.tsx';
import { findings, stepOf, type Walk } from './walk.ts';

export function App() {
  const source = useSource();
  const { opened, error } = source.state;
  return (
    <>
      <Header source={source} />
      {error !== null && (
        <p class="error" role="alert">
          {error}
          <button type="button" class="link" onClick={() => source.dismiss()}>
            Dismiss
          </button>
        </p>
      )}
      <main>
        <aside class="card source">
          <Examples source={source} />
        </aside>
        {opened === null ? (
          <p class="soft card">{error === null ? 'Loading …' : 'Nothing is open.'}</p>
        ) : (
          <Opened key={opened.key} source={source} walk={opened.walk} />
        )}
      </main>
    </>
  );
}

function Header({ source }: { source: Source }) {
  return (
    <header class="top">
      <h1>
        chainrule <span class="soft">playground</span>
      </h1>
      <p class="soft">A backward pass, one node at a time. Drop a trace anywhere on the page.</p>
      <label class="open">
        Open a trace
        <input
          type="file"
          accept=".json,application/json"
          onChange={(event) => {
            const [file] = event.currentTarget.files ?? [];
            if (file !== undefined) void source.openFile(file);
            event.currentTarget.value = '';
          }}
        />
      </label>
    </header>
  );
}

function Examples({ source }: { source: Source }) {
  const { opened, examples, given } = source.state;
  const example = opened?.example ?? null;
  return (
    <>
      <label class="field wide">
        <span>Example</span>
        <select value={example?.id ?? ''} onChange={(event) => void source.openExample(event.currentTarget.value)}>
          {example === null && <option value="">{opened?.title ?? 'Choose one'}</option>}
          {examples.map(({ id, title }) => (
            <option value={id}>{title}</option>
          ))}
        </select>
      </label>
      {example === null ? (
        <p class="soft">{opened === null ? '' : `${opened.walk.trace.nodes.length} nodes from ${opened.title}.`}</p>
      ) : (
        <>
          <p class="soft">{example.text}</p>
          <Inputs
            key={`${opened!.key}`}
            example={example}
            given={given}
            onChange={(changed) => void source.change(changed)}
          />
          {example.trains !== null && <TrainButtons source={source} />}
        </>
      )}
    </>
  );
}

const TrainButtons = ({ source }: { source: Source }) => (
  <div class="buttons">
    <button type="button" class="primary" onClick={() => (source.state.busy ? source.stop() : void source.train())}>
      {source.state.busy ? 'Stop' : 'Train'}
    </button>
    <button type="button" onClick={() => void source.restart()}>
      Start again
    </button>
  </div>
);

function Opened({ source, walk }: { source: Source; walk: Walk }) {
  const walking = useWalking(walk);
  const { step, onStep } = walking;
  useKeys(walking);
  const onNode = useCallback((node: number) => onStep(stepOf(walk, node, step)), [walk, step, onStep]);
  const training = source.state.opened?.training ?? null;
  return (
    <>
      <section class="card stage" aria-label="Walk">
        <div class="stage-head">
          <Legend />
          <NodeList walk={walk} onNode={onNode} />
        </div>
        <GraphView walk={walk} step={step} onNode={onNode} />
        <Transport {...walking} />
        <p class="hidden" role="status">
          {walking.playing ? '' : told(walk, step)}
        </p>
      </section>
      <section class="card inspect" aria-label="Current step">
        <Inspector walk={walk} step={step} onNode={onNode} />
      </section>
      <section class="card under" aria-label="Over the steps">
        {training !== null && <TrainingView training={training} />}
        <Lanes walk={walk} step={step} onStep={onStep} />
      </section>
      <Findings walk={walk} onStep={onStep} />
    </>
  );
}

const Legend = () => (
  <ul class="legend">
    <li class="current">current</li>
    <li class="known">computed</li>
    <li class="gradient">∂ gradient</li>
  </ul>
);

function Findings({ walk, onStep }: { walk: Walk; onStep: (step: number) => void }) {
  const found = useMemo(() => findings(walk), [walk]);
  const { dropped } = walk.trace;
  if (found.length === 0 && dropped === 0) return null;
  return (
    <section class="card findings" aria-label="Worth a look">
      <h3>Worth a look</h3>
      <ul class="plain">
        {found.map(({ text, step }) => (
          <li>
            <button type="button" class="link" onClick={() => onStep(step)}>
              {text}: first at step {step + 1}
            </button>
          </li>
        ))}
        {dropped > 0 && <li class="soft">{dropped} ops were left out of this trace.</li>}
      </ul>
    </section>
  );
}

/** A short walk is slow enough to read, a long one comes to its end. */
const pace = (steps: number): number => (steps <= 60 ? 700 : 120);

function useWalking(walk: Walk): Walking {
  const [at, setStep] = useState(0);
  const [playing, setPlaying] = useState(false);
  const last = Math.max(0, walk.trace.steps.length - 1);
  // Other inputs may make a shorter walk.
  const step = Math.min(at, last);
  const onStep = useCallback((next: number) => setStep(Math.max(0, Math.min(last, next))), [last]);
  // From where it is when the key is handled: several may come before the page is drawn.
  const onMove = useCallback(
    (by: number) => setStep((from) => Math.max(0, Math.min(last, Math.min(from, last) + by))),
    [last],
  );
  const onPlay = useCallback(
    (play: boolean) => {
      if (play && step === last) setStep(0);
      setPlaying(play);
    },
    [step, last],
  );
  useEffect(() => {
    if (!playing) return;
    if (step === last) {
      setPlaying(false);
      return;
    }
    const timer = setTimeout(() => onStep(step + 1), pace(last));
    return () => clearTimeout(timer);
  }, [playing, step, last, onStep]);
  return { walk, step, playing, onStep, onMove, onPlay };
}
