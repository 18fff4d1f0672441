// The buttons, the slider and the keys that walk through a trace.
import { useEffect, useMemo } from 'preact/hooks';
import { fullLabel } from './format.ts';
import type { Walk } from './walk.ts';

export interface Walking {
  readonly walk: Walk;
  readonly step: number;
  readonly playing: boolean;
  readonly onStep: (step: number) => void;
  readonly onMove: (by: number) => void;
  readonly onPlay: (playing: boolean) => void;
}

export function Transport({ walk, step, playing, onStep, onMove, onPlay }: Walking) {
  const last = Math.max(0, walk.trace.steps.length - 1);
  const button = (text: string, name: string, keys: string, act: () => void, disabled: boolean) => (
    <button type="button" aria-label={name} title={`${name} (${keys})`} onClick={act} disabled={disabled}>
      {text}
    </button>
  );
  return (
    <div class="transport">
      <div class="buttons">
        {button('⇤', 'First step', 'Home', () => onStep(0), step === 0)}
        {button('←', 'Step back', 'left arrow', () => onMove(-1), step === 0)}
        <button type="button" class="primary" onClick={() => onPlay(!playing)} title="Play or pause (Space)">
          {playing ? 'Pause' : 'Play'}
        </button>
        {button('→', 'Step forward', 'right arrow', () => onMove(1), step >= last)}
        {button('⇥', 'Last step', 'End', () => onStep(last), step >= last)}
      </div>
      <label class="slider">
        <span class="hidden">Step</span>
        <input
          type="range"
          min={0}
          max={last}
          value={step}
          onInput={(event) => onStep(event.currentTarget.valueAsNumber)}
        />
      </label>
      <output class="mono count" data-step={step}>
        {Math.min(step, last) + 1} / {last + 1}
      </output>
    </div>
  );
}

/** All nodes by name. Thousands of them, so it is not made again at each step. */
export function NodeList({ walk, onNode }: { walk: Walk; onNode: (node: number) => void }) {
  const options = useMemo(
    () =>
      walk.trace.nodes.map((node, id) => (
        <option key={id} value={id}>
          {fullLabel(node, id)}
        </option>
      )),
    [walk],
  );
  return (
    <label class="jump">
      <span>Go to</span>
      <select
        value=""
        onChange={(event) => {
          const { value } = event.currentTarget;
          if (value !== '') onNode(Number(value));
          event.currentTarget.value = '';
        }}
      >
        <option value="">a node …</option>
        {options}
      </select>
    </label>
  );
}

/** Elements that have their own use for a key. */
const OWN = {
  step: 'input, select, textarea, .scroll',
  play: 'input, select, textarea, button, summary, a, .scroll',
};

export function useKeys({ walk, playing, onStep, onMove, onPlay }: Walking): void {
  useEffect(() => {
    const last = walk.trace.steps.length - 1;
    const acts: Readonly<Record<string, () => void>> = {
      ArrowRight: () => onMove(1),
      ArrowLeft: () => onMove(-1),
      Home: () => onStep(0),
      End: () => onStep(last),
      ' ': () => onPlay(!playing),
    };
    const pressed = (event: KeyboardEvent): void => {
      const act = Object.hasOwn(acts, event.key) ? acts[event.key] : undefined;
      if (act === undefined || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
      if ((event.target as Element).closest?.(event.key === ' ' ? OWN.play : OWN.step)) return;
      event.preventDefault();
      act();
    };
    addEventListener('keydown', pressed);
    return () => removeEventListener('keydown', pressed);
  }, [walk, playing, onStep, onMove, onPlay]);
}
