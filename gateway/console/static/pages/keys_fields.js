// Fields of a key's form that are more than one line of text: words, limits, budgets, and when it ends.
import {html, useRef, useState} from '../lib.js';
import {Field} from '../parts/basic.js';
import {Icon} from '../parts/icons.js';
import {LIMITS, PERIODS, UNITS, daysFromNow} from './keys_values.js';

const ENDS = [['30 days', 30], ['90 days', 90], ['1 year', 365]];

// Words, each with a button that takes it away. Enter or a comma ends one, and so does leaving the field.
// `given`: what `Field` gives; `offered`: words to choose from.
export function Words({given, values, onChange, offered = [], what = 'word'}) {
  const [text, setText] = useState('');
  const field = useRef(null);
  const add = () => {
    const words = text.split(',').map((word) => word.trim()).filter(Boolean);
    setText('');
    if (words.length) onChange([...new Set([...values, ...words])]);
  };
  const remove = (word) => {
    onChange(values.filter((one) => one !== word));
    field.current.focus();
  };
  const pressed = (event) => {
    if (event.isComposing) return;
    if ((event.key === 'Enter' && text.trim()) || event.key === ',') {
      event.preventDefault();
      add();
    } else if (event.key === 'Backspace' && !text && values.length) {
      onChange(values.slice(0, -1));
    }
  };
  return html`<div class="key-words">
    ${values.map((word) => html`<span class="key-word" key=${word}>${word}
      <button type="button" class="quiet" aria-label=${`Remove the ${what} ${word}`} onClick=${() => remove(word)}><${Icon} name="close" size="13" /></button></span>`)}
    <input ...${given} ref=${field} list=${`${given.id}-offered`} value=${text} autocomplete="off" spellcheck=${false}
      onInput=${(event) => setText(event.target.value)} onKeyDown=${pressed} onBlur=${add} />
    <datalist id=${`${given.id}-offered`}>${offered.filter((word) => !values.includes(word)).map((word) => html`<option key=${word} value=${word} />`)}</datalist>
  </div>`;
}

export function Limits({limits, wrong, onChange}) {
  return html`<fieldset><legend>Limits</legend>
    <p class="hint">Empty means no limit for this key. Limits of its team and of the model apply too.</p>
    <div class="fields">${LIMITS.map(({id, label}) => html`<${Field} key=${id} label=${label} error=${wrong(`limits.${id}`)}>
      ${(given) => html`<input ...${given} inputmode="numeric" autocomplete="off" value=${limits[id]} placeholder="no limit"
        onInput=${(event) => onChange({...limits, [id]: event.target.value})} />`}<//>`)}</div>
  </fieldset>`;
}

export function BudgetFields({budgets, wrong, onChange}) {
  const adding = useRef(null);
  const change = (at, values) => onChange(budgets.map((one, place) => (place === at ? {...one, ...values} : one)));
  const remove = (at) => {
    onChange(budgets.filter((_, place) => place !== at));
    adding.current.focus();
  };
  const whole = wrong('budgets') && !budgets.some((_, at) => wrong(`budgets[${at}]`)) ? wrong('budgets') : null;
  return html`<fieldset><legend>Budgets</legend>
    <p class="hint">How much may be spent in a period. Periods start at midnight UTC. Every budget applies.</p>
    ${budgets.map((one, at) => html`<${BudgetRow} key=${at} number=${at + 1} budget=${one} error=${wrong(`budgets[${at}]`)}
      onChange=${(values) => change(at, values)} onRemove=${() => remove(at)} />`)}
    ${whole && html`<p class="wrong-text" role="alert">${whole}</p>`}
    <button type="button" class="small" ref=${adding} onClick=${() => onChange([...budgets, {amount: '', unit: 'dollars', per: 'month'}])}>
      <${Icon} name="plus" size="15" />Add a budget</button>
  </fieldset>`;
}

function BudgetRow({number, budget, error, onChange, onRemove}) {
  const choice = (name, label, options) => html`<select aria-label=${`${label} of budget ${number}`} value=${budget[name]}
    onChange=${(event) => onChange({[name]: event.target.value})}>
    ${options.map(({id, label: text}) => html`<option key=${id} value=${id}>${text}</option>`)}</select>`;
  return html`<div class="budget-row">
    <${Field} label=${`Amount of budget ${number}`} error=${error} class="bare">${(given) => html`<input ...${given} inputmode="decimal" autocomplete="off"
      value=${budget.amount} onInput=${(event) => onChange({amount: event.target.value})} />`}<//>
    ${choice('unit', 'Unit', UNITS)}${choice('per', 'Period', PERIODS)}
    <button type="button" class="quiet square" aria-label=${`Remove budget ${number}`} onClick=${onRemove}><${Icon} name="trash" size="16" /></button>
  </div>`;
}

export function Ends({value, error, onChange}) {
  return html`<${Field} label="Expires" hint="The key is refused from then on. In this browser's time zone; empty means never." error=${error}>${(given) => html`
    <input ...${given} type="datetime-local" value=${value} onInput=${(event) => onChange(event.target.value)} />
    <div class="row">${ENDS.map(([label, days]) => html`<button key=${days} type="button" class="small" onClick=${() => onChange(daysFromNow(days))}>${label}</button>`)}
      <button type="button" class="small" onClick=${() => onChange('')}>never</button></div>`}<//>`;
}
