// The points of a classifier and what it says of every place between them.
import { useEffect, useRef } from 'preact/hooks';
import type { Training } from './api.ts';
import { Losses } from './charts.tsx';
import { short } from './format.ts';

const SIZE = { width: 420, height: 290 };
const CLASSES = ['#5b54ea', '#e0842f'] as const;

export function TrainingView({ training }: { training: Training }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  useEffect(() => paint(canvas.current!, training), [training]);
  const { iteration, losses, accuracy } = training;
  return (
    <div class="training">
      <figure>
        <figcaption>
          Decision boundary <output class="mono">{(100 * accuracy).toFixed(1)} %</output>
          <span class="soft"> right</span>
        </figcaption>
        <canvas ref={canvas} {...SIZE} role="img" aria-label={`Decision boundary after ${iteration} iterations`} />
      </figure>
      <figure>
        <figcaption>
          Loss <output class="mono">{short(losses.at(-1) ?? null)}</output>
          <span class="soft"> after {iteration} iterations</span>
        </figcaption>
        <Losses losses={losses} />
      </figure>
    </div>
  );
}

function paint(canvas: HTMLCanvasElement, { boundary, points }: Training): void {
  const context = canvas.getContext('2d')!;
  const { width, height } = SIZE;
  const { columns, rows, values, x, y } = boundary;
  context.clearRect(0, 0, width, height);
  // One pixel for each cell, blown up: the browser smooths between them.
  const cells = new OffscreenCanvas(columns, rows);
  const small = cells.getContext('2d')!;
  values.forEach((p, i) => {
    small.globalAlpha = 0.1 + 0.36 * Math.abs(2 * p - 1);
    small.fillStyle = CLASSES[p > 0.5 ? 1 : 0];
    // The smallest y is at the bottom.
    small.fillRect(i % columns, rows - 1 - Math.floor(i / columns), 1, 1);
  });
  context.drawImage(cells, 0, 0, width, height);
  context.strokeStyle = '#fff';
  for (const point of points) {
    context.fillStyle = CLASSES[point.label];
    context.beginPath();
    context.arc(
      ((point.x - x[0]) / (x[1] - x[0])) * width,
      height - ((point.y - y[0]) / (y[1] - y[0])) * height,
      3.5,
      0,
      2 * Math.PI,
    );
    context.fill();
    context.stroke();
  }
}
