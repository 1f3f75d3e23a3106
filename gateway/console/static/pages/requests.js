// The requests, newest first, as the ledger has them; and one of them.
//
// Rule: the address holds what is asked. New rows come by themselves while the head of the page is seen, so that
// nothing moves below somebody who reads further down.
import {html, useEffect, useState} from '../lib.js';
import {DASH, NO_KEY, compact, dollars, keyName, milliseconds, moment, number, teamName, unixOf} from '../format.js';
import {Badge, Card, Empty, Failure, Field, Head, Loading} from '../parts/basic.js';
import {Icon} from '../parts/icons.js';
import {NoLedger} from '../parts/no_ledger.js';
import {Table} from '../parts/table.js';
import {go, href} from '../router.js';
import {Narrow} from './names.js';
import {costOf, outcome} from './requests_facts.js';
import {useRequests} from './requests_list.js';
import {One} from './requests_one.js';

const TOP = 80; // pixels that still count as the top of the page
const SPANS = [['1h', 'Last hour'], ['24h', 'Last 24 hours'], ['7d', 'Last 7 days'], ['', 'Last 30 days'], ['1970-01-01', 'All']];
const ENDED = [['', 'All'], ['ok', 'OK'], ['error', 'Errors']];

export default function Requests({route, session}) {
  if (!session.keeps.ledger) return html`<${Head} title="Requests" /><${NoLedger} />`;
  if (route.id !== null) return html`<${One} id=${route.id} query=${route.query} />`;
  return html`<${List} query=${route.query} />`;
}

function List({query}) {
  const {key, team, model, status, since, until} = query;
  const live = useAtTop();
  const {rows, next, error, more, busy, refresh} = useRequests({key, team, model, status, since, until}, live);
  const change = (values) => go('requests', {query: {...query, ...values}}, {replace: true});
  const actions = html`<span class="note" role="status">${live ? 'Updates live' : 'Paused: scroll up to resume'}</span>
    <button type="button" onClick=${refresh}><${Icon} name="refresh" size="16" />Refresh</button>`;
  return html`
    <${Head} title="Requests" note="From the ledger, newest first." actions=${actions} />
    <${Filters} query=${query} change=${change} />
    <${Failure} error=${error} retry=${refresh} />
    ${rows ? html`<${Rows} rows=${rows} query=${query} />` : !error && html`<${Loading} />`}
    ${rows?.length > 0 && html`<div class="request-more">
      <span class="note" role="status">${next ? `${number(rows.length)} shown` : `All ${number(rows.length)} shown`}</span>
      ${next && html`<button type="button" disabled=${busy} onClick=${more}>Load more</button>`}</div>`}`;
}

function Filters({query, change}) {
  const choice = (name, label, options) => {
    const value = query[name] ?? '';
    const all = options.some(([id]) => id === value) ? options : [...options, [value, value]];
    return html`<${Field} label=${label}>${(given) => html`<select ...${given} value=${value} onChange=${(event) => change({[name]: event.target.value, ...(name === 'since' ? {until: ''} : {})})}>
      ${all.map(([id, text]) => html`<option key=${id} value=${id}>${text}</option>`)}</select>`}<//>`;
  };
  return html`<div class="filters" role="search">
    <${Narrow} query=${query} onChange=${change} />
    ${choice('status', 'Outcome', ENDED)}
    ${choice('since', query.until ? `Until ${query.until.slice(0, 10)}, since` : 'Since', SPANS)}
  </div>`;
}

function Rows({rows, query}) {
  const empty = html`<${Empty} icon="requests" title="No matching requests">
    A request appears a moment after it ends, if its key was valid.<//>`;
  return html`<${Card} flush><${Table} caption="Requests" columns=${columnsOf(query)} rows=${rows} name=${({id}) => id} empty=${empty} /><//>`;
}

const dim = (text) => html`<span class="muted lines">${text}</span>`;

function columnsOf(query) {
  const link = (row) => html`<a href=${href('requests', {id: row.id, query})} aria-label=${`Request of ${moment(unixOf(row.time))} by ${keyName(row.key_name)}`}>${moment(unixOf(row.time))}</a>`;
  const ended = (row) => {
    const {text, tone} = outcome(row);
    return html`<${Badge} tone=${tone}>${text}<//>`;
  };
  const model = (row) => html`<span class="lines"><span>${row.model || dim(DASH)}</span>${row.asked && row.asked !== row.model && html`<span class="note">as ${row.asked}</span>`}</span>`;
  return [
    {id: 'time', label: 'Time', fits: true, cell: link},
    {id: 'outcome', label: 'Outcome', fits: true, cell: ended},
    {id: 'model', label: 'Model', cell: model},
    {id: 'key', label: 'Key', cell: (row) => html`<span class="lines">${row.key_name === NO_KEY ? dim(keyName(NO_KEY)) : row.key_name}</span>`},
    {id: 'team', label: 'Team', cell: (row) => row.team ?? dim(teamName(null))},
    {id: 'in', label: 'Tokens in', numeric: true, cell: (row) => compact(row.prompt_tokens)},
    {id: 'out', label: 'Tokens out', numeric: true, cell: (row) => compact(row.completion_tokens)},
    {id: 'first', label: 'First token', numeric: true, cell: (row) => html`${row.boot_ms > 0 && html`<${Badge} tone="busy" title="Waited for a container to boot">cold<//> `}${milliseconds(row.first_event_ms)}`},
    {id: 'took', label: 'Total', numeric: true, cell: (row) => milliseconds(row.duration_ms)},
    {id: 'cost', label: 'Cost', numeric: true, cell: (row) => dollars(costOf(row))},
  ];
}

function useAtTop() {
  const [top, setTop] = useState(true);
  useEffect(() => {
    const moved = () => setTop(scrollY < TOP);
    moved();
    addEventListener('scroll', moved, {passive: true});
    return () => removeEventListener('scroll', moved);
  }, []);
  return top;
}
