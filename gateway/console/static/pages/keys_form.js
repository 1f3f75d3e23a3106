// The form that makes a key or changes one.
//
// Rule: the gateway checks; what it refuses is said at the field that it names, which takes the focus.
import {send} from '../api.js';
import {useAction} from '../hooks.js';
import {html, useEffect, useRef, useState} from '../lib.js';
import {Failure, Field} from '../parts/basic.js';
import {Dialog} from '../parts/dialog.js';
import {BudgetFields, Ends, Limits, Words} from './keys_fields.js';
import {changesOf, complaints, draftOf, grantOf, placed} from './keys_values.js';

// `row`: the key to change, or null for a new one; `names`: {teams, models} to choose from. `onDone` is given
// what the gateway answered, null if nothing was changed.
export function KeyForm({row: given, names, onDone, onClose}) {
  const [row] = useState(given); // as it was when the form was opened: what others change meanwhile is theirs
  const [draft, setDraft] = useState(() => draftOf(row ?? {}));
  const form = useRef(null);
  const {busy, error, run} = useAction(async () => onDone(await sent(row, draft)));
  const wrong = complaints(error);
  const change = (values) => setDraft((old) => ({...old, ...values}));
  const first = (selector) => () => form.current.querySelector(selector)?.focus();
  useEffect(first('input'), []);
  useEffect(first('[aria-invalid="true"]'), [error]);
  const footer = html`<button type="button" onClick=${onClose}>Cancel</button>
    <button type="submit" class="primary" disabled=${busy}>${row ? 'Save' : 'Create key'}</button>`;
  return html`<${Dialog} title=${row ? `Edit ${row.name}` : 'New key'} wide onClose=${onClose} onSubmit=${run} footer=${footer}>
    <div class="key-form" ref=${form}>
      <${Failure} error=${placed(error) ? null : error} />
      <${Who} draft=${draft} wrong=${wrong} change=${change} teams=${names.teams} />
      <${Field} label="Models" hint="Names or patterns; * matches any text. The key cannot use other models." error=${wrong('models')}>
        ${(given) => html`<${Words} given=${given} values=${draft.models} offered=${names.models} what="model"
          onChange=${(models) => change({models})} />`}<//>
      <${Limits} limits=${draft.limits} wrong=${wrong} onChange=${(limits) => change({limits})} />
      <${BudgetFields} budgets=${draft.budgets} wrong=${wrong} onChange=${(budgets) => change({budgets})} />
      <${Rest} draft=${draft} wrong=${wrong} change=${change} />
    </div>
  <//>`;
}

async function sent(row, draft) {
  if (!row) return send('POST', '/admin/keys', grantOf(draft));
  const changes = changesOf(row, draft);
  if (!Object.keys(changes).length) return null;
  return send('PATCH', `/admin/keys/${encodeURIComponent(row.id)}`, changes);
}

function Who({draft, wrong, change, teams}) {
  return html`<div class="fields">
    <${Field} label="Name" hint="Shown instead of the key in logs, usage and requests." error=${wrong('name')}>${(given) => html`
      <input ...${given} name="name" autocomplete="off" spellcheck=${false} value=${draft.name} onInput=${(event) => change({name: event.target.value})} />`}<//>
    <${Field} label="Team" hint="The key shares the limits and budgets of its team." error=${wrong('team')}>${(given) => html`
      <input ...${given} autocomplete="off" list="teams" value=${draft.team} onInput=${(event) => change({team: event.target.value})} />
      <datalist id="teams">${teams.map((name) => html`<option key=${name} value=${name} />`)}</datalist>`}<//>
    <${Field} label="Owner" hint="Who is responsible for the key." error=${wrong('owner')}>${(given) => html`
      <input ...${given} autocomplete="off" value=${draft.owner} onInput=${(event) => change({owner: event.target.value})} />`}<//>
  </div>`;
}

function Rest({draft, wrong, change}) {
  return html`<div class="fields rest">
    <${Ends} value=${draft.expires} error=${wrong('expires')} onChange=${(expires) => change({expires})} />
    <${Field} label="Priority" hint="-100 to 100. Higher goes first when a model is full." error=${wrong('priority')}>${(given) => html`
      <input ...${given} inputmode="numeric" autocomplete="off" value=${draft.priority} onInput=${(event) => change({priority: event.target.value})} />`}<//>
    <${Field} label="Tags" hint="Words to search by." error=${wrong('tags')}>${(given) => html`
      <${Words} given=${given} values=${draft.tags} what="tag" onChange=${(tags) => change({tags})} />`}<//>
  </div>
  <label class="check"><input type="checkbox" checked=${draft.disabled} onChange=${(event) => change({disabled: event.target.checked})} />
    Disabled: refused until it is enabled</label>`;
}
