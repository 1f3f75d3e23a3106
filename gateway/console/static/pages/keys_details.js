// One key in a drawer, what can be done to it, and its secret, which is seen once.
//
// Rule: a secret is held for as long as its dialog is open, and nowhere else.
import {send} from '../api.js';
import {useAction} from '../hooks.js';
import {dayOf, moment, number, relative, teamName, unixOf} from '../format.js';
import {html} from '../lib.js';
import {Badge, Copy, Failure, Field} from '../parts/basic.js';
import {Confirm, Dialog} from '../parts/dialog.js';
import {href} from '../router.js';
import {Budgets} from './keys_budgets.js';
import {limitsOf} from './keys_values.js';

const TONES = {active: 'good', configured: 'accent', disabled: 'warn', expired: 'bad', revoked: null, unreadable: 'bad'};

export const UNGUARDED = 'Authentication is off (auth.mode: none): this gateway answers without a key, so keys guard nothing.';

export const place = (row, more = '') => `/admin/keys/${encodeURIComponent(row.id)}${more}`;
export const written = (row) => row.id.startsWith('config:');

export const KeyState = ({value}) => html`<${Badge} tone=${TONES[value]}>${value}<//>`;

// `onAct` is given 'edit', 'rotate', 'disable', 'enable' or 'revoke'.
export function KeyDetails({row, budgets, error, onAct, onClose}) {
  const act = (name, label, kind = '') => html`<button type="button" class=${kind} onClick=${() => onAct(name)}>${label}</button>`;
  const over = row.state === 'revoked';
  const footer = !written(row) && !over && html`
    ${act('revoke', 'Revoke', 'danger')}
    ${row.state !== 'unreadable' && html`${row.disabled ? act('enable', 'Enable') : act('disable', 'Disable')}${act('rotate', 'Rotate')}${act('edit', 'Edit', 'primary')}`}`;
  return html`<${Dialog} title=${row.name} side onClose=${onClose} footer=${footer}>
    <${Failure} error=${error} />
    <div class="row"><${KeyState} value=${row.state} />${(row.tags ?? []).map((tag) => html`<${Badge} key=${tag}>${tag}<//>`)}</div>
    ${written(row) && html`<p class="note">From the configuration: change it there.</p>`}
    ${over && html`<p class="note">Revoked: it no longer works, and its name is free again.</p>`}
    <dl class="facts key-facts">
      ${fact('Team', teamName(row.team))}
      ${fact('Owner', row.owner ?? 'no owner')}
      ${fact('Priority', number(row.priority))}
      ${fact('Expires', row.expires ? `${moment(unixOf(row.expires))} (${relative(unixOf(row.expires))})` : 'never')}
      ${fact('Models', html`<span class="mono">${(row.models ?? []).join(', ')}</span>`)}
      ${fact('Limits', limitsOf(row.limits).join(', ') || 'none')}
      ${row.created && fact('Created', dayOf(unixOf(row.created)))}
      ${row.updated && fact('Updated', moment(unixOf(row.updated)))}
      ${row.revoked && fact('Revoked', moment(unixOf(row.revoked)))}
      ${fact('ID', html`<span class="mono">${row.id}</span>`)}
    </dl>
    <div class="stack tight"><h3>Budgets</h3><${Budgets} budgets=${budgets} whose=${row.name} /></div>
    <p class="row"><a href=${href('usage', {query: {by: 'day', key: row.id}})}>Usage of this key</a>
      <a href=${href('requests', {query: {key: row.id}})}>Requests of this key</a></p>
  <//>`;
}

const fact = (label, value) => html`<div><dt>${label}</dt><dd>${value}</dd></div>`;

const ASKED = {
  rotate: {
    title: 'Rotate', verb: 'Rotate', says: 'gets a new secret. The old one stops working at once, and its running requests end.', danger: false,
    work: (row) => send('POST', place(row, '/rotate')),
  },
  disable: {
    title: 'Disable', verb: 'Disable', says: 'is refused until it is enabled again, and its running requests end.', danger: false,
    work: (row) => send('PATCH', place(row), {disabled: true}),
  },
  revoke: {
    title: 'Revoke', verb: 'Revoke', says: 'stops working for good, and its running requests end. It stays in the list as revoked.', danger: true,
    work: (row) => send('DELETE', place(row)),
  },
};

// Asks before `what` is done to a key: 'rotate', 'disable' or 'revoke'. `onDone` is given what the gateway answered.
export function Ask({what, row, onDone, onClose}) {
  const {title, verb, says, danger, work} = ASKED[what];
  const {busy, error, run} = useAction(async () => onDone(await work(row)));
  return html`<${Confirm} title=${`${title} ${row.name}?`} verb=${verb} danger=${danger}
    busy=${busy} error=${error} onYes=${run} onClose=${onClose}><p>The key <b>${row.name}</b> ${says}</p><//>`;
}

// A secret that was just made; `guards`: whether the gateway asks for keys at all.
export function Secret({name, secret, guards, onClose}) {
  const lines = () => `export OPENAI_BASE_URL=${location.origin}/v1\nexport OPENAI_API_KEY=${secret}\n`;
  const footer = html`<button type="button" class="primary" onClick=${onClose}>I have saved it</button>`;
  return html`<${Dialog} title=${`API key of ${name}`} locked footer=${footer} onClose=${onClose}>
    <p class="warning">Copy it now: it is shown only once. The gateway keeps no readable copy.</p>
    ${!guards && html`<p class="note">${UNGUARDED}</p>`}
    <${Field} label="API key">${(given) => html`<textarea ...${given} class="secret" rows="2" readonly
      spellcheck=${false} value=${secret} onFocus=${(event) => event.target.select()} />`}<//>
    <div class="row"><${Copy} text=${secret} label="Copy the key" /><${Copy} text=${lines} label="Copy as env variables" class="quiet" /></div>
  <//>`;
}
