// When each piece of an answer came: the wait for the first, then a stroke for each, as high as its gap was long.
//
// Rule: pure drawing. What it shows is said in text as well.
import {html, useMemo} from '../lib.js';
import {DASH, decimal, number, seconds} from '../format.js';

const [WIDE, HIGH] = [600, 56];
const STROKES = 300; // at most; of those that share a place the longest gap is shown

// `times`: seconds since the request was sent, ascending; `tokens`: how many were written, or null.
export function figuresOf(times, tokens) {
  const gaps = times.slice(1).map((time, at) => time - times[at]);
  const sorted = [...gaps].sort((a, b) => a - b);
  const span = times.length > 1 ? times.at(-1) - times[0] : 0;
  return {
    first: times[0] ?? null,
    pieces: times.length,
    middle: sorted.length ? sorted[Math.floor(sorted.length / 2)] : null,
    longest: sorted.at(-1) ?? null,
    speed: span > 0 && times.length > 4 && tokens < 2 * times.length && tokens > 1 ? (tokens - 1) / span : null, // not of what came late, at once
  };
}

export function Timeline({times, tokens}) {
  const found = figuresOf(times, tokens);
  const end = times.at(-1) || 1;
  const strokes = useMemo(() => drawn(times, end, found.longest), [times.length]);
  const wait = (found.first ?? 0) / end * WIDE;
  const told = `First chunk after ${seconds(found.first)}, ${number(found.pieces)} chunks; gap p50 ${seconds(found.middle)}, max ${seconds(found.longest)}`;
  return html`<figure class="token-times">
    <svg viewBox=${`0 0 ${WIDE} ${HIGH}`} preserveAspectRatio="none" role="img" aria-label=${told}>
      <rect class="wait" x="0" y="0" width=${wait} height=${HIGH} />
      <path class="pieces" d=${strokes} />
    </svg>
    <figcaption class="legend">
      <span>First chunk <b>${seconds(found.first)}</b></span>
      <span>Chunks <b>${number(found.pieces)}</b></span>
      <span>Gap p50 <b>${seconds(found.middle)}</b>, max <b>${seconds(found.longest)}</b></span>
      <span>Speed <b>${found.speed === null ? DASH : `${decimal(found.speed)} tokens/s`}</b></span>
    </figcaption>
  </figure>`;
}

// The path of the strokes: each stands where its piece came.
function drawn(times, end, longest) {
  const gaps = new Map();
  times.forEach((time, at) => {
    const place = Math.round(time / end * STROKES);
    const gap = at ? time - times[at - 1] : 0;
    gaps.set(place, Math.max(gaps.get(place) ?? 0, gap));
  });
  const height = (gap) => 4 + (longest ? gap / longest : 0) * (HIGH - 8);
  return [...gaps].map(([place, gap]) => `M${(place / STROKES * (WIDE - 4) + 2).toFixed(1)} ${HIGH}v${(-height(gap)).toFixed(1)}`).join('');
}
