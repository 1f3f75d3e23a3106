// The overview: what goes on now, the last quarter of an hour, and what today has cost.
//
// Rule: the gateway keeps the points, each with what happened in its seconds; here they only become rates.
import {get} from '../api.js';
import {compact, decimal, dollars, number, percent, seconds} from '../format.js';
import {html, useMemo} from '../lib.js';
import {Card, Empty, Failure, Head, Loading, Stat, State} from '../parts/basic.js';
import {Chart} from '../parts/chart.js';
import {usePoll} from '../hooks.js';
import {href} from '../router.js';

const EVERY = 2; // seconds
const LEAST = 300; // seconds that a chart shows
const RECENT = 12; // points that a rate of "now" is made of: a minute

export default function Overview({session}) {
  const {data, error, refresh} = usePoll(asked, EVERY);
  if (!data) {
    return html`<${Head} title="Overview" />${error ? html`<${Failure} error=${error} retry=${refresh} />` : html`<${Loading} />`}`;
  }
  const {overview, upstreams} = data;
  const {version, uptime_seconds: uptime, workers} = overview.gateway;
  const note = `modal-gateway ${version}, up for ${seconds(uptime)}${workers > 1 ? `, ${workers} workers` : ''}`;
  return html`
    <${Head} title="Overview" note=${note} />
    <${Failure} error=${error} />
    <${Figures} ...${overview} kept=${session.keeps.ledger} />
    ${overview.points.length > 1 ? html`<${Charts} ...${overview} />` : html`<${Card}><${Empty} icon="overview"
      title="No data yet">The charts start within seconds and show the last 15 minutes.<//><//>`}
    <${Models} upstreams=${upstreams} workers=${workers} />`;
}

async function asked(signal) {
  const [overview, upstreams] = await Promise.all([
    get('/admin/overview', {}, {signal}), get('/admin/upstreams', {}, {signal}),
  ]);
  return {overview, upstreams: upstreams.data};
}

const sum = (points, name) => points.reduce((all, point) => all + (point[name] ?? 0), 0);

function Figures({points, today, total, live, kept}) {
  const recent = points.slice(-RECENT);
  const span = Math.max(sum(recent, 'seconds'), 1);
  const last = live ?? points.at(-1) ?? {in_flight: 0, streams: 0};
  const errors = sum(points, 'errors');
  const requests = sum(points, 'requests');
  const minutes = `${Math.max(Math.round(sum(points, 'seconds') / 60), 1)} min`;
  const spent = today ?? total;
  const when = today ? 'today' : 'since start';
  return html`<dl class="stats" aria-label="Now">
    <${Stat} label="In flight" value=${number(last.in_flight)} note=${`${number(last.streams)} ${last.streams === 1 ? 'stream' : 'streams'} open`} />
    <${Stat} label="Requests" value=${decimal(sum(recent, 'requests') / span)} unit="/s" note=${`${compact(requests)} in ${minutes}`} />
    <${Stat} label="Tokens out" value=${decimal(sum(recent, 'tokens_out') / span)} unit="/s"
      note=${`${decimal(sum(recent, 'tokens_in') / span)}/s in`} />
    <${Stat} label="Errors" value=${number(errors)} tone=${errors ? 'bad' : null}
      note=${linked(kept && errors, 'requests', {status: 'error'}, `${requests ? percent(errors / requests) : 'none'} in ${minutes}`)} />
    <${Stat} label="Cold starts" value=${number(sum(points, 'cold_starts'))} note=${`in ${minutes}`} />
    <${Stat} label=${`Cost ${when}`} value=${dollars(spent.cost)}
      note=${html`${spent.cost === null && 'no price set, '}${linked(kept, 'usage', {}, `${seconds(spent.gpu_seconds)} GPU time`)}`}
      title=${`${number(spent.requests)} requests, ${number(spent.prompt_tokens)} tokens in, ${number(spent.completion_tokens)} out`} />
  </dl>`;
}

// A note that leads to where one sees more, if there is more.
const linked = (there, name, query, text) => (there ? html`<a href=${href(name, {query})}>${text}</a>` : text);

function Charts({points}) {
  const newest = points.at(-1).time; // the gateway adds a point every few seconds, and is asked more often
  const drawn = useMemo(() => {
    const of = (name) => points.map((point) => point[name]);
    const rate = (name) => points.map((point) => point[name] / point.seconds);
    return {
      times: of('time'),
      load: [line('In flight', of('in_flight'), 1), line('Streams', of('streams'), 2)],
      requests: [line('Requests', rate('requests'), 1), line('Errors', rate('errors'), 6)],
      tokens: [line('Out', rate('tokens_out'), 1), line('In', rate('tokens_in'), 3)],
      first: [line('p50', of('ttft_p50'), 1), line('p95', of('ttft_p95'), 2)],
      gaps: [line('p50', of('gap_p50'), 1), line('p95', of('gap_p95'), 2)],
      containers: [line('Running', of('containers'), 4)],
    };
  }, [newest, points.length]);
  const chart = (title, note, series, format, least = 0) => html`<${Card} title=${title} note=${note}>
    <${Chart} label=${title} times=${drawn.times} series=${series} format=${format} span=${LEAST} least=${least} /><//>`;
  return html`<div class="grid">
    ${chart('Requests', 'per second', drawn.requests, decimal)}
    ${chart('Tokens', 'per second', drawn.tokens, decimal)}
    ${chart('Time to first token', null, drawn.first, seconds)}
    ${chart('Time between tokens', null, drawn.gaps, seconds)}
    ${chart('In flight', null, drawn.load, number, 4)}
    ${chart('Containers', 'idle ones included', drawn.containers, decimal, 2)}
  </div>`;
}

const line = (label, values, tone) => ({label, values, tone: `series-${tone}`});

function Models({upstreams, workers}) {
  const link = html`<a href=${href('models')}>All models</a>`;
  const shared = new Set(upstreams.map((one) => one.model).filter((name, at, all) => all.indexOf(name) !== at));
  return html`<${Card} title="Models" note=${workers > 1 ? 'as one of the workers sees them' : null} actions=${link}>
    ${upstreams.length ? html`<ul class="model-strip">${upstreams.map((one) => html`<li key=${`${one.model} ${one.name}`}>
      <span class="name">${one.model}${shared.has(one.model) && html` <span class="muted">${one.name}</span>`}</span>
      <span class="muted tabular">${one.running}/${one.limit}${one.waiting ? `, ${one.waiting} waiting` : ''}</span>
      <${State} value=${one.state} /></li>`)}</ul>` : html`<p class="note">No models are configured.</p>`}
  <//>`;
}
