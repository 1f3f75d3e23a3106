// The small parts of every page: its head, cards, figures, badges, bars, fields, and what stands where nothing is.
//
// Rule: colour never says anything alone. What comes from outside is filled in as text.
import {html, useEffect, useId, useRef, useState} from '../lib.js';
import {Icon} from './icons.js';
import {toast} from './toast.js';

// The page's head, whose title takes the focus when one comes here. `note`: a line below it; `actions`: at its right.
export function Head({title, note, actions, back}) {
  return html`<header class="head">
    <div>
      ${back && html`<a class="back" href=${back.href}><${Icon} name="left" size="16" />${back.label}</a>`}
      <h1 tabindex="-1">${title}</h1>
      ${note && html`<p class="note">${note}</p>`}
    </div>
    ${actions && html`<div class="actions">${actions}</div>`}
  </header>`;
}

// A surface with an optional title; `level` of its heading, `flush` without room around its content.
export function Card({title, note, actions, children, level = 2, flush = false, class: more = ''}) {
  const id = useId();
  return html`<section class=${`card ${flush ? 'flush' : ''} ${more}`} aria-labelledby=${title ? id : null}>
    ${(title || actions) && html`<div class="card-head">
      ${title && html`<${`h${level}`} id=${id}>${title}<//>`}
      ${note && html`<span class="note">${note}</span>`}
      ${actions && html`<div class="actions">${actions}</div>`}
    </div>`}
    ${children}
  </section>`;
}

// One figure, inside <dl class="stats">; `tone`: 'good', 'warn', 'bad' or null; `title`: more, for who points at it.
export function Stat({label, value, unit, note, tone, title}) {
  return html`<div class=${`stat ${tone ?? ''}`} title=${title}>
    <dt>${label}</dt>
    <dd><span class="figure">${value}</span>${unit && html` <span class="unit">${unit}</span>`}</dd>
    ${note && html`<dd class="note">${note}</dd>`}
  </div>`;
}

// `tone`: 'good', 'warn', 'bad', 'busy', 'accent' or null.
export function Badge({tone, children, title}) {
  return html`<span class=${`badge ${tone ?? ''}`} title=${title}>${children}</span>`;
}

const TONES = {warm: 'good', saturated: 'warn', booting: 'busy', stopped: 'bad', cold: null, unknown: null};

// The state of a model's upstream.
export function State({value}) {
  return html`<span class=${`badge dot ${TONES[value] ?? ''}`}>${value}</span>`;
}

// How much of `max` is taken; without `max`, or with an unknown value, it shows that something goes on.
// `meter` for a level (a budget), else a progress. `label` is for screen readers, `text` what they hear as value.
export function Bar({value = null, max = 1, label, text, tone, meter = false}) {
  const known = typeof value === 'number' && max > 0;
  const share = known ? Math.min(Math.max(value / max, 0), 1) : 0;
  return html`<div class=${`bar ${tone ?? ''} ${known ? '' : 'unknown'}`} role=${meter ? 'meter' : 'progressbar'}
    aria-label=${label} aria-valuetext=${text} aria-valuemin="0" aria-valuemax="100"
    aria-valuenow=${known ? Math.round(share * 100) : null}>
    <div style=${{width: known ? `${share * 100}%` : null}}></div>
  </div>`;
}

// What stands where nothing is, and what to do about it.
export function Empty({title, children, icon}) {
  return html`<div class="empty">
    ${icon && html`<${Icon} name=${icon} size="28" />`}
    <p class="title">${title}</p>
    ${children && html`<div class="note">${children}</div>`}
  </div>`;
}

// An ApiError in place; `retry` makes a button.
export function Failure({error, retry}) {
  if (!error) return null;
  return html`<div class="failure" role="alert">
    <${Icon} name="warning" />
    <div><p>${error.message}</p>${error.code && html`<p class="note"><code>${error.code}</code></p>`}</div>
    ${retry && html`<button type="button" onClick=${retry}>Try again</button>`}
  </div>`;
}

export function Loading({label = 'Loading'}) {
  return html`<div class="loading" role="status"><span class="spinner"></span><span>${label}…</span></div>`;
}

// A label, its field, a hint and what is wrong. `children` is a function that is given the field's attributes:
// <${Field} label="Name" error=${e}>${(given) => html`<input ...${given} />`}<//>
export function Field({label, hint, error, children, class: more = ''}) {
  const id = useId();
  const described = [hint && `${id}-hint`, error && `${id}-error`].filter(Boolean).join(' ');
  const given = {id, 'aria-describedby': described || null, 'aria-invalid': error ? 'true' : null};
  return html`<div class=${`field ${more} ${error ? 'wrong' : ''}`}>
    <label for=${id}>${label}</label>
    ${children(given)}
    ${hint && html`<p class="hint" id=${`${id}-hint`}>${hint}</p>`}
    ${error && html`<p class="wrong-text" id=${`${id}-error`}>${error}</p>`}
  </div>`;
}

// Copies `text` (a string, or a function that gives one).
export function Copy({text, label = 'Copy', class: more = ''}) {
  const [done, setDone] = useState(false);
  const timer = useRef(0);
  useEffect(() => () => clearTimeout(timer.current), []);
  const copy = async () => {
    const wanted = typeof text === 'function' ? text() : text;
    if (!(await copied(wanted))) return toast('The browser does not allow copying here.', 'bad');
    setDone(true);
    toast('Copied', 'good');
    clearTimeout(timer.current);
    timer.current = setTimeout(() => setDone(false), 2000);
  };
  return html`<button type="button" class=${`copy ${more}`} onClick=${copy}>
    <${Icon} name=${done ? 'check' : 'copy'} size="16" />${label}</button>`;
}

// Off loopback over plain HTTP a page has no clipboard; there an old way is left.
async function copied(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text).then(() => true, () => false);
  const area = document.createElement('textarea');
  area.value = text;
  (document.querySelector('dialog[open]') ?? document.body).append(area);
  area.select();
  const done = document.execCommand('copy');
  area.remove();
  return done;
}

// A choice of views. `tabs`: [{id, label}]; the panel below is the page's: role="tabpanel", aria-label.
export function Tabs({label, tabs, value, onChange}) {
  const list = useRef(null);
  const moved = (event) => {
    const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
    if (!step) return;
    event.preventDefault();
    const at = tabs.findIndex((tab) => tab.id === value);
    const next = (at + step + tabs.length) % tabs.length;
    onChange(tabs[next].id);
    list.current.children[next].focus();
  };
  return html`<div class="tabs" role="tablist" aria-label=${label} ref=${list} onKeyDown=${moved}>
    ${tabs.map((tab) => html`<button key=${tab.id} type="button" role="tab" aria-selected=${String(tab.id === value)}
      tabindex=${tab.id === value ? 0 : -1} onClick=${() => onChange(tab.id)}>${tab.label}</button>`)}
  </div>`;
}
