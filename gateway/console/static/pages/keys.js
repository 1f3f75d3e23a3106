// The keys: who may use what and how much is used of it; made, changed, given another secret, and ended.
//
// Rule: those of the configuration are seen and not touched.
import {ApiError, get, send} from '../api.js';
import {usePoll} from '../hooks.js';
import {dayOf, number, relative, teamName, unixOf} from '../format.js';
import {html, useMemo, useState} from '../lib.js';
import {Badge, Card, Empty, Failure, Field, Head, Loading} from '../parts/basic.js';
import {Icon} from '../parts/icons.js';
import {Table} from '../parts/table.js';
import {toast} from '../parts/toast.js';
import {go} from '../router.js';
import {Budgets, unused} from './keys_budgets.js';
import {Ask, KeyDetails, KeyState, Secret, UNGUARDED, place} from './keys_details.js';
import {KeyForm} from './keys_form.js';
import {limitsOf} from './keys_values.js';

const EVERY = 10; // seconds
const STATES = [['', 'Not revoked'], ['active', 'Active'], ['configured', 'From the configuration'], ['disabled', 'Disabled'],
  ['expired', 'Expired'], ['revoked', 'Revoked'], ['any', 'All']];

export default function Keys({route, session}) {
  const {data, error, refresh} = usePoll(asked, EVERY);
  const [open, setOpen] = useState(null); // {what, id} of a dialog, or {what: 'secret', name, secret}
  const budgets = useMemo(() => budgetsOf(data), [data]);
  const actions = session.keeps.keys && html`<button type="button" class="primary" onClick=${() => setOpen({what: 'new'})}>
    <${Icon} name="plus" size="16" />New key</button>`;
  return html`
    <${Head} title="Keys" note="Who may use which models, and how much." actions=${actions} />
    <${Failure} error=${error} retry=${refresh} />
    ${session.auth === 'none' && html`<p class="warning">${UNGUARDED}</p>`}
    ${!session.keeps.keys && html`<p class="note">This gateway has only the keys of its configuration. Set <code>store.url</code> there to create keys on this page.</p>`}
    ${data ? html`<${List} route=${route} keys=${data.keys} stored=${session.keeps.keys} budgets=${budgets} onOpen=${(row) => setOpen({what: 'details', id: row.id})} />
      <${Others} rows=${data.budgets} />` : !error && html`<${Loading} />`}
    ${data && open && html`<${Dialogs} session=${session} open=${open} setOpen=${setOpen} data=${data} budgets=${budgets} refresh=${refresh} />`}`;
}

// Keys are shown also where nobody can say what is spent.
async function asked(signal) {
  const spent = get('/admin/budgets', {}, {signal}).then(({data}) => data, (error) => {
    if (error instanceof ApiError) return null;
    throw error;
  });
  const models = get('/v1/models', {}, {signal}).then(({data}) => data.map(({id}) => id), () => []);
  const [keys, budgets, names] = await Promise.all([get('/admin/keys', {}, {signal}), spent, models]);
  return {keys: keys.data, budgets, models: names};
}

// row -> [{per, unit, limit, used}]
function budgetsOf(data) {
  const known = new Map((data?.budgets ?? []).filter(({kind}) => kind === 'key').map(({id, budgets}) => [id, budgets]));
  return (row) => known.get(row.id) ?? unused(row.budgets ?? []);
}

function List({route, keys, stored, budgets, onOpen}) {
  const {q = '', state = ''} = route.query;
  const filter = (values) => go('keys', {query: {q, state, ...values}}, {replace: true});
  const rows = keys.filter((row) => stands(row, state) && holds(row, q));
  const columns = useMemo(() => columnsOf(budgets, onOpen), [budgets]);
  const empty = html`<${Empty} icon="keys" title=${keys.length ? 'No matching keys' : 'No keys yet'}>
    ${keys.length ? 'Try fewer words, or all states.' : stored ? 'Create one for each person or program.' : html`Write them under <code>auth.keys</code> in the configuration.`}<//>`;
  return html`
    <div class="filters" role="search">
      <${Field} label="Search" class="key-search">${(given) => html`<input ...${given} type="search" value=${q} placeholder="Name, team, owner, model, tag"
        onInput=${(event) => filter({q: event.target.value})} />`}<//>
      <${Field} label="State">${(given) => html`<select ...${given} value=${state} onChange=${(event) => filter({state: event.target.value})}>
        ${STATES.map(([id, label]) => html`<option key=${id} value=${id}>${label}</option>`)}</select>`}<//>
      <p class="note count" role="status">${number(rows.length)} of ${number(keys.length)}</p>
    </div>
    <${Card} flush><${Table} caption="Keys" columns=${columns} rows=${rows} name=${({id}) => id} empty=${empty} /><//>`;
}

const stands = (row, state) => (state === 'any' ? true : state ? row.state === state : row.state !== 'revoked');

function holds(row, text) {
  const words = [row.name, row.team, row.owner, row.id, ...(row.models ?? []), ...(row.tags ?? [])].join('\n').toLowerCase();
  return text.toLowerCase().split(/\s+/).every((part) => words.includes(part));
}

function columnsOf(budgets, onOpen) {
  return [
    {id: 'name', label: 'Name', by: (row) => row.name, cell: (row) => html`<button type="button" class="link" onClick=${() => onOpen(row)}>${row.name}</button>
      ${row.owner && html`<div class="note">${row.owner}</div>`}
      ${row.tags?.length > 0 && html`<div class="key-tags">${row.tags.map((tag) => html`<${Badge} key=${tag}>${tag}<//>`)}</div>`}`},
    {id: 'state', label: 'State', by: (row) => row.state, cell: (row) => html`<${KeyState} value=${row.state} />`},
    {id: 'team', label: 'Team', by: (row) => row.team, cell: (row) => (row.team ? row.team : html`<span class="muted lines">${teamName(null)}</span>`)},
    {id: 'models', label: 'Models', cell: (row) => html`<span class="mono lines">${lines(row.models ?? [])}</span>`},
    {id: 'limits', label: 'Limits', cell: (row) => (limitsOf(row.limits).length ? html`<span class="lines tabular">${lines(limitsOf(row.limits))}</span>` : dash)},
    {id: 'budgets', label: 'Budgets', cell: (row) => (row.budgets?.length ? html`<${Budgets} budgets=${budgets(row)} whose=${row.name} />` : dash)},
    {id: 'expires', label: 'Expires', by: (row) => unixOf(row.expires), cell: (row) => html`<${Ends} at=${unixOf(row.expires)} />`},
    {id: 'priority', label: 'Priority', numeric: true, by: (row) => row.priority, cell: (row) => number(row.priority)},
  ];
}

const dash = html`<span class="muted">–</span>`;
const lines = (words) => words.map((word) => html`<span key=${word}>${word}</span>`);

function Ends({at}) {
  if (at === null) return html`<span class="muted">never</span>`;
  return html`<span class="lines"><span>${dayOf(at)}</span><span class="muted">${relative(at)}</span></span>`;
}

// Budgets of teams and models.
function Others({rows}) {
  const others = (rows ?? []).filter(({kind}) => kind !== 'key');
  if (rows === null) return html`<p class="note" role="status">The ledger does not answer, so what was spent is not known.</p>`;
  if (!others.length) return null;
  return html`<${Card} title="Budgets of teams and models" note="from the configuration"><ul class="budget-holders">
    ${others.map((one) => html`<li key=${`${one.kind} ${one.id}`}>
      <div class="row"><${Badge}>${one.kind}<//><b>${one.name}</b></div>
      <${Budgets} budgets=${one.budgets} whose=${`${one.kind} ${one.name}`} /></li>`)}</ul><//>`;
}

function Dialogs({session, open, setOpen, data, budgets, refresh}) {
  const row = data.keys.find(({id}) => id === open.id);
  const close = () => setOpen(null);
  const back = () => setOpen({what: 'details', id: open.id});
  const names = {teams: teamsOf(data), models: data.models};
  const done = (answer) => {
    refresh();
    setOpen(answer?.key ? {what: 'secret', name: answer.name, secret: answer.key} : null);
    if (answer && !answer.key) toast(`${answer.name} is ${answer.state}`, 'good');
  };
  const act = (what) => (what === 'enable' ? send('PATCH', place(row), {disabled: false}).then(done, (error) => setOpen({...open, error})) : setOpen({what, id: row.id}));
  if (open.what === 'secret') return html`<${Secret} key="secret" ...${open} guards=${session.auth !== 'none'} onClose=${close} />`;
  if (open.what === 'new') return html`<${KeyForm} key="new" row=${null} names=${names} onDone=${done} onClose=${close} />`;
  if (!row) return null;
  if (open.what === 'edit') return html`<${KeyForm} key="edit" row=${row} names=${names} onDone=${done} onClose=${back} />`;
  if (open.what === 'details') return html`<${KeyDetails} key="details" row=${row} budgets=${budgets(row)} error=${open.error} onAct=${act} onClose=${close} />`;
  return html`<${Ask} key=${open.what} what=${open.what} row=${row} onDone=${done} onClose=${back} />`;
}

function teamsOf({keys, budgets}) {
  const found = [...keys.map(({team}) => team), ...(budgets ?? []).filter(({kind}) => kind === 'team').map(({id}) => id)];
  return [...new Set(found.filter(Boolean))].sort();
}
