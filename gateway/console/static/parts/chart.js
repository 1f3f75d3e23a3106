// A chart of values over time, drawn by uPlot, which is loaded with the first chart.
//
// Rule: a canvas says nothing to a screen reader, so what it shows is also said in text. Colours come from the
// style sheet and follow light and dark.
import {html, useEffect, useMemo, useRef, useState} from '../lib.js';
import {clock, dayOf} from '../format.js';

let loading = null;

function library() {
  loading ??= new Promise((resolve, reject) => {
    const script = document.createElement('script');
    script.src = '/console/vendor/uplot.js';
    script.onload = () => resolve(window.uPlot);
    script.onerror = () => {
      loading = null;
      script.remove();
      reject(new Error('The charts could not be loaded.'));
    };
    document.head.append(script);
  });
  return loading;
}

// `times`: unix seconds; `series`: [{label, values, tone}] with null for what is unknown, `tone` a colour's name
// in console.css (series-1 ... series-6); `format` of values; `bars` instead of lines, `stacked`, `days` when one
// point is a day; at least `span` seconds and values up to `least` have room; `height` in pixels; `label` says what
// is drawn.
export function Chart({
  label, times, series, format = String, bars = false, stacked = false, days = false, span = 0, least = 0, height = 160,
}) {
  const place = useRef(null);
  const plot = useRef(null);
  const [at, setAt] = useState(null);
  const theme = useTheme();
  const names = series.map((one) => `${one.label} ${one.tone}`).join('|');
  const data = useMemo(() => [times, ...(stacked ? piled(series) : series).map((one) => one.values)], [times, series]);
  const latest = useRef({});
  latest.current = {data, format};
  useEffect(() => {
    let gone = false;
    let observer = null;
    library().then((UPlot) => {
      if (gone || !place.current) return;
      const width = () => Math.max(place.current.clientWidth, 120);
      const options = optionsOf(UPlot, {series, bars, stacked, days, span, least, latest, setAt, height, width: width()});
      plot.current = new UPlot(options, latest.current.data, place.current);
      observer = new ResizeObserver(() => plot.current?.setSize({width: width(), height}));
      observer.observe(place.current);
    }, () => {});
    return () => {
      gone = true;
      observer?.disconnect();
      plot.current?.destroy();
      plot.current = null;
    };
  }, [names, theme, bars, stacked, days, span, least, height]);
  useEffect(() => plot.current?.setData(data), [data]);
  const index = at ?? times.length - 1;
  const value = ({values}) => format((at === null ? values.findLast((known) => known !== null) : values[at]) ?? null);
  const when = times[index] === undefined ? '' : (days ? dayOf : clock)(times[index]);
  return html`<figure class="chart">
    <figcaption class="legend">
      ${series.map((one) => html`<span key=${one.label} class="entry">
        <i class=${`swatch ${one.tone}`}></i>${one.label} <b>${value(one)}</b></span>`)}
      <span class="when">${at === null && !bars ? '' : when}</span>
    </figcaption>
    <div ref=${place} class="plot" role="img" style=${{height: `${height}px`}}
      aria-label=${`${label}. ${when}: ${series.map((one) => `${one.label} ${value(one)}`).join(', ')}`}></div>
  </figure>`;
}

// Each series on top of those before it. The highest comes first: what is drawn later covers it.
function piled(series) {
  const sums = [];
  const add = (value, at) => (sums[at] = (sums[at] ?? 0) + (value ?? 0));
  return series.map((one) => ({...one, values: one.values.map(add)})).reverse();
}

function optionsOf(UPlot, {series, bars, stacked, days, span, least, latest, setAt, height, width}) {
  const colour = coloursOf();
  const format = (value) => latest.current.format(value);
  const axis = {stroke: colour('muted'), font: '11px system-ui, sans-serif', ticks: {show: false}};
  const paths = bars ? UPlot.paths.bars({size: [0.7, 40], radius: 0.1}) : undefined;
  const drawn = (stacked ? [...series].reverse() : series).map((one, at) => ({
    label: one.label,
    stroke: colour(one.tone),
    width: bars ? 0 : 1.5,
    fill: bars || stacked ? colour(one.tone) : at === 0 ? colour(`${one.tone}-soft`) : undefined,
    paths,
    points: {show: false, filter: bars ? undefined : alone, size: 4, fill: colour(one.tone)},
  }));
  return {
    width,
    height,
    padding: [8, 18, 0, 0],
    legend: {show: false},
    cursor: {y: false, drag: {x: false, y: false}, points: {show: !bars}},
    scales: {
      x: {time: true, range: bars ? roomy : (_, low, high) => [Math.min(low, high - span), high]},
      y: {range: (_, low, high) => [0, Math.max(high * 1.1, least) || 1]},
    },
    axes: [
      {...axis, grid: {show: false}, incrs: days ? DAYS : undefined, space: 56, size: 25, gap: 6, values: days ? shortDays : shortTimes},
      {...axis, grid: {stroke: colour('line'), width: 1}, size: 50, space: 30, values: (_, splits) => splits.map(format)},
    ],
    series: [{}, ...drawn],
    hooks: {setCursor: [(plot) => setAt(plot.cursor.idx ?? null)]},
  };
}

const DAYS = [1, 2, 3, 7, 14, 31, 93, 366].map((count) => count * 86_400);

// Half a bar more at both ends.
function roomy(plot, low, high) {
  const [count, step] = [plot.data[0].length, (high - low) / Math.max(plot.data[0].length - 1, 1)];
  const half = count > 1 ? step / 2 : 1800;
  return [low - half, high + half];
}

// Points between two unknown ones, which no line reaches.
function alone(plot, at) {
  const values = plot.data[at];
  const known = (index) => values[index] !== null && values[index] !== undefined;
  return values.map((_, index) => index).filter((index) => known(index) && !known(index - 1) && !known(index + 1));
}

// Labels below: with seconds only where they are less than a minute apart.
const shortTimes = (_, splits, __, ___, apart) => splits.map((unix) => (apart < 60 ? clock(unix) : clock(unix).slice(0, 5)));
const shortDays = (_, splits) => splits.map((unix) => dayOf(unix).replace(/ \d+$/, ''));

// The style sheet's colours as a canvas takes them: resolved, for light or dark.
function coloursOf() {
  const probe = document.createElement('i');
  document.body.append(probe);
  const found = new Map();
  queueMicrotask(() => probe.remove());
  return (name) => {
    if (!found.has(name)) {
      probe.style.color = `var(--${name})`;
      found.set(name, getComputedStyle(probe).color);
    }
    return found.get(name);
  };
}

// Changes whenever light becomes dark or the other way round.
function useTheme() {
  const query = useMemo(() => matchMedia('(prefers-color-scheme: dark)'), []);
  const current = () => document.documentElement.dataset.theme ?? (query.matches ? 'dark' : 'light');
  const [theme, setTheme] = useState(current);
  useEffect(() => {
    const changed = () => setTheme(current());
    const watching = new MutationObserver(changed);
    watching.observe(document.documentElement, {attributeFilter: ['data-theme']});
    query.addEventListener('change', changed);
    return () => {
      watching.disconnect();
      query.removeEventListener('change', changed);
    };
  }, []);
  return theme;
}
