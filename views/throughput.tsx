/** Throughput of the last minute as an SVG drawn on the server: no script, no style attribute. */
/** @jsxRuntime classic @jsx Html.createElement @jsxFrag Html.Fragment */
import { Html } from "@elysiajs/html";

export interface ThroughputSecond {
  readonly at: number;
  readonly completed: number;
  readonly failed: number;
  readonly submitted: number;
}

const SERIES = ["submitted", "completed", "failed"] as const;
const WIDTH = 600;
const HEIGHT = 96;
const SECONDS = 60;
/** The legend's rate is the mean of the newest seconds. */
const RATE_SECONDS = 10;

/** The next 1, 2 or 5 times a power of ten: the scale changes seldom. */
export function axisTop(peak: number): number {
  let top = 1;
  for (;;) {
    for (const factor of [1, 2, 5]) if (top * factor >= peak) return top * factor;
    top *= 10;
    if (!Number.isFinite(top)) return peak;
  }
}

function polyline(values: readonly number[], top: number): string {
  const step = WIDTH / (SECONDS - 1);
  const first = SECONDS - values.length;
  return values
    .map((value, index) => {
      const x = (first + index) * step;
      const y = HEIGHT - (Math.min(value, top) / top) * HEIGHT;
      return `${x.toFixed(1)},${y.toFixed(1)}`;
    })
    .join(" ");
}

function rate(values: readonly number[]): string {
  const newest = values.slice(-RATE_SECONDS);
  if (newest.length === 0) return "0/s";
  const mean = newest.reduce((sum, value) => sum + value, 0) / newest.length;
  return `${mean < 10 ? mean.toFixed(1) : String(Math.round(mean))}/s`;
}

export function Throughput(props: { seconds: readonly ThroughputSecond[] }): JSX.Element {
  const seconds = props.seconds.slice(-SECONDS);
  const series = SERIES.map((name) => ({ name, values: seconds.map((second) => second[name]) }));
  const top = axisTop(Math.max(1, ...series.flatMap((line) => line.values)));
  return (
    <section id="throughput" class="panel" aria-labelledby="throughput-heading">
      <div class="panel-head">
        <h2 id="throughput-heading">Last minute</h2>
        <ul class="legend">
          {series.map((line) => (
            <li class={`line-${line.name}`}>
              <span class="legend-mark" aria-hidden="true"></span>
              <span>{line.name}</span> <strong safe>{rate(line.values)}</strong>
            </li>
          ))}
        </ul>
      </div>
      <div class="chart">
        <svg
          viewBox={`0 -4 ${WIDTH} ${HEIGHT + 8}`}
          preserveAspectRatio="none"
          role="img"
          aria-label={`Tasks per second over the last minute, scale to ${top}`}
        >
          <line class="grid" x1="0" y1="0" x2={WIDTH} y2="0" />
          <line class="grid" x1="0" y1={HEIGHT / 2} x2={WIDTH} y2={HEIGHT / 2} />
          <line class="grid" x1="0" y1={HEIGHT} x2={WIDTH} y2={HEIGHT} />
          {series.map((line) => (
            <polyline class={`line line-${line.name}`} points={polyline(line.values, top)} />
          ))}
        </svg>
        <div class="chart-labels muted" aria-hidden="true">
          <span safe>{`${top}/s`}</span>
          <span>0</span>
        </div>
        <div class="chart-time muted" aria-hidden="true">
          <span>60 s ago</span>
          <span>now</span>
        </div>
      </div>
    </section>
  );
}
