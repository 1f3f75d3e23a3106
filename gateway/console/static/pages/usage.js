// What was used: by key, team, model or day, over a span of time, and as files.
//
// Rule: the address holds what is asked, so that it can be kept and sent on. Sums are the gateway's.
import {address, get} from '../api.js';
import {usePoll} from '../hooks.js';
import {decimal, dollars, number, percent, seconds} from '../format.js';
import {html, useMemo} from '../lib.js';
import {Bar, Card, Empty, Failure, Field, Head, Loading, Stat, Tabs} from '../parts/basic.js';
import {Chart} from '../parts/chart.js';
import {Icon} from '../parts/icons.js';
import {NoLedger} from '../parts/no_ledger.js';
import {Table} from '../parts/table.js';
import {go, href} from '../router.js';
import {Narrow} from './names.js';
import {BY, MEASURES, amount, seriesOf, whose, writtenAs} from './usage_series.js';
import {RANGES, dayName, isDays, isoOf, shown, sliceName, sliced, slicesOf, spanOf} from './usage_spans.js';

const EVERY = 60; // seconds
const STILL = ['by', 'range', 'from', 'to', 'key', 'team', 'model'];

export default function Usage({route, session}) {
  if (!session.keeps.ledger) return html`<${Head} title="Usage" /><${NoLedger} />`;
  return html`<${Asked} query=${route.query} />`;
}

function Asked({query}) {
  const by = BY.some(({id}) => id === query.by) ? query.by : 'key';
  const measure = MEASURES.some(({id}) => id === query.show) ? query.show : 'tokens';
  const change = (values) => go('usage', {query: {...query, ...values}}, {replace: true});
  const {data, error, loading, refresh} = usePoll((signal) => asked({...query, by}, signal), EVERY, STILL.map((name) => query[name]));
  const actions = html`<button type="button" onClick=${refresh}><${Icon} name="refresh" size="16" />Refresh</button>
    ${data && html`<${Export} data=${data} />`}`;
  return html`
    <${Head} title="Usage" note="From the ledger: every request with a valid key." actions=${actions} />
    <${Filters} query=${query} change=${change} />
    <${Failure} error=${error} retry=${refresh} />
    ${data ? html`<${Found} data=${data} measure=${measure} loading=${loading} change=${change} />` : !error && html`<${Loading} />`}`;
}

// The sums of the whole span, and those of each slice of it: `drawn` is by whom, or by day where there are too many.
async function asked(query, signal) {
  const {by, key, team, model} = query;
  const span = spanOf(query, Date.now() / 1000);
  const narrowed = {key, team, model};
  const sums = (more) => get('/admin/usage', {since: isoOf(span.since), until: isoOf(span.until), ...narrowed, ...more}, {signal});
  const per = isDays(span) ? 'day' : 'hour';
  const together = (error) => {
    if (error.param !== 'per' || by === 'day') throw error;
    return sums({by: 'day', per});
  };
  const [whole, bars] = await Promise.all([sums({by}), sums({by, per}).catch(together)]);
  const times = slicesOf(span).map(({since}) => shown(since, span));
  return {by, drawn: bars.by, query, span, narrowed, whole, lines: sliced(bars.data, span), times};
}

function Filters({query, change}) {
  const {range = '7d'} = query;
  const span = spanOf(query, Date.now() / 1000);
  const days = {from: dayName(span.since), to: dayName(span.until - 1)};
  const day = (name, label) => html`<${Field} label=${label}>${(given) => html`<input ...${given} type="date" value=${days[name]}
    onChange=${(event) => event.target.value && change({[name]: event.target.value})} />`}<//>`;
  return html`<div class="filters" role="search">
    <${Field} label="Time range">${(given) => html`<select ...${given} value=${range}
      onChange=${({target}) => change({range: target.value, from: '', to: '', ...(target.value === 'custom' ? days : {})})}>
      ${RANGES.map(({id, label}) => html`<option key=${id} value=${id}>${label}</option>`)}</select>`}<//>
    ${range === 'custom' && html`${day('from', 'From')}${day('to', 'To (included)')}`}
    <${Narrow} query=${query} onChange=${change} />
  </div>`;
}

function Export({data}) {
  const {span, narrowed} = data;
  const file = `usage-${dayName(span.since)}-${dayName(span.until - 1)}`;
  const link = (format, ending) => html`<a class="button" download=${`${file}.${ending}`} aria-label=${`Download as ${format.toUpperCase()}`}
    href=${address('/admin/usage/rows', {format, since: isoOf(span.since), until: isoOf(span.until), ...narrowed})}>
    <${Icon} name="download" size="16" />${format.toUpperCase()}</a>`;
  return html`${link('csv', 'csv')}${link('json', 'jsonl')}`;
}

function Found({data, measure, loading, change}) {
  const {by, drawn, span, whole, lines, times} = data;
  const {total} = whole;
  const series = useMemo(() => seriesOf(lines, whole.data, drawn, measure), [data, measure]);
  const note = `${drawn === by ? `by ${by}` : `all ${by}s together, as there are too many to show each`}, one bar per ${sliceName(span)}`;
  const written = writtenAs(measure);
  const measures = html`<${Tabs} label="Measure" tabs=${MEASURES} value=${measure} onChange=${(show) => change({show})} />`;
  return html`
    <${Totals} total=${total} />
    ${total.requests + total.gpu_seconds + total.dollars > 0 && html`<${Card} title=${MEASURES.find(({id}) => id === measure).label} note=${note} actions=${measures}>
      <div role="tabpanel" aria-label=${measure}><${Chart} label=${`${measure} by ${drawn}`} times=${times} series=${series} format=${written} bars stacked
        days=${isDays(span)} height=${220} /></div><//>`}
    <${Card} flush title="Breakdown" actions=${html`<${Tabs} label="By" tabs=${BY} value=${by} onChange=${(next) => change({by: next})} />`}>
      <div role="tabpanel" aria-label=${`Breakdown by ${by}`} aria-busy=${String(loading)}>
        <${Table} key=${`${by} ${measure}`} caption=${`Usage by ${by}`} columns=${columnsOf(data, measure)} rows=${whole.data} name=${(line) => whose(line, by).id}
          sorted=${{id: by === 'day' ? 'name' : 'share', down: true}} empty=${html`<${Empty} icon="usage" title="No usage">
            No requests match in this time range.<//>`}
          foot=${['Total', number(total.requests), number(total.errors), number(total.prompt_tokens), number(total.completion_tokens),
            seconds(total.gpu_seconds), priced(total.dollars), '', '']} /></div><//>`;
}

function Totals({total}) {
  return html`<dl class="stats exact" aria-label="Totals">
    <${Stat} label="Requests" value=${number(total.requests)} />
    <${Stat} label="Errors" value=${number(total.errors)} tone=${total.errors ? 'bad' : null} note=${total.requests ? percent(total.errors / total.requests) : null} />
    <${Stat} label="Tokens in" value=${number(total.prompt_tokens)} />
    <${Stat} label="Tokens out" value=${number(total.completion_tokens)} />
    <${Stat} label="GPU time" ...${gpuTime(total.gpu_seconds)} note="incl. idle containers" />
    <${Stat} label="Cost" value=${dollars(total.dollars)} note=${total.dollars === null && UNPRICED} />
  </dl>`;
}

const UNPRICED = 'no price set';
const priced = (value) => (value === null ? html`<span class="muted">${UNPRICED}</span>` : dollars(value));

// Hours where there are some: a figure is read from afar.
const gpuTime = (value) => (value < 3600 ? {value: seconds(value)} : {value: decimal(value / 3600), unit: 'h'});

function columnsOf({by, query, span, whole}, measure) {
  const all = amount(whole.total, measure);
  const column = (id, label, of, written) => ({id, label, numeric: true, by: of, cell: (line) => written(of(line))});
  const narrowed = (line) => {
    const {id, value} = whose(line, by);
    if (by === 'day') return {since: isoOf(Date.parse(id) / 1000), until: isoOf(Date.parse(id) / 1000 + 86_400)};
    return value ? {[by]: value, since: isoOf(span.since), until: isoOf(span.until)} : null;
  };
  const name = (line) => {
    const {name: text, value} = whose(line, by);
    if (by === 'day' || !value) return text;
    return html`<a href=${href('usage', {query: {...query, by: 'day', [by]: value}})} title="Show by day">${text}</a>`;
  };
  return [
    {id: 'name', label: BY.find(({id}) => id === by).label, by: (line) => whose(line, by).name, cell: name},
    column('requests', 'Requests', (line) => line.requests, number),
    column('errors', 'Errors', (line) => line.errors, number),
    column('in', 'Tokens in', (line) => line.prompt_tokens, number),
    column('out', 'Tokens out', (line) => line.completion_tokens, number),
    column('gpu_seconds', 'GPU time', (line) => line.gpu_seconds, seconds),
    column('dollars', 'Cost', (line) => line.dollars, priced),
    {id: 'share', label: 'Share', by: (line) => amount(line, measure), cell: (line) => html`<div class="usage-share"><${Bar} meter value=${amount(line, measure)} max=${all}
      label=${`Share of ${whose(line, by).name}`} text=${percent(all ? amount(line, measure) / all : 0)} /></div>`},
    {id: 'requests-link', label: html`<span class="unseen">Link</span>`, fits: true, cell: (line) => narrowed(line) && html`<a
      href=${href('requests', {query: {...query, by: '', show: '', range: '', from: '', to: '', ...narrowed(line)}})} aria-label=${`Requests of ${whose(line, by).name}`}>Requests</a>`},
  ];
}
