// The settings of a chat: system prompt, numbers, stop strings, tools and the response format.
//
// Rule: an empty field is not sent, and the container decides. `problems`: what is wrong, by the API's field names.
import {html, useState} from '../lib.js';
import {Field} from '../parts/basic.js';
import {Icon} from '../parts/icons.js';
import {EXAMPLE_SCHEMA, EXAMPLE_TOOLS, NUMBERS, stopProblem, toolsOf, unescaped} from './playground_body.js';

const FORMATS = {text: 'Text', json_object: 'JSON object', json_schema: 'JSON schema'};

export function Settings({settings, change, problems}) {
  const typed = (name) => (event) => change({[name]: event.target.value});
  const numbers = (more) => html`<div class="fields">${NUMBERS.filter((row) => Boolean(row.more) === more).map((row) => html`
    <${NumberField} key=${row.name} row=${row} settings=${settings} change=${change} error=${problems[row.name]} />`)}</div>`;
  return html`<div class="stack settings">
    <${Field} label="System prompt">${(given) => html`<textarea ...${given} rows="4" value=${settings.system}
      placeholder="You are a helpful assistant." onInput=${typed('system')}></textarea>`}<//>
    ${numbers(false)}
    <${Stops} stops=${settings.stops} onChange=${(stops) => change({stops})} error=${problems.stop} />
    <label class="check"><input type="checkbox" checked=${settings.stream} onChange=${(event) => change({stream: event.target.checked})} />
      Stream the answer</label>
    <details class="fold"><summary>More parameters</summary>
      <div class="stack">${numbers(true)}
        <${Field} label="Reasoning effort" hint="For templates that support it" error=${problems.reasoning_effort}>${(given) => html`<select ...${given}
          value=${settings.effort} onChange=${typed('effort')}>
          <option value="">not sent</option>${['low', 'medium', 'high'].map((each) => html`<option key=${each}>${each}</option>`)}</select>`}<//>
      </div></details>
    <details class="fold" open=${Boolean(settings.tools)}><summary>Tools</summary>
      <${Tools} settings=${settings} change=${change} error=${problems.tools ?? problems.tool_choice} /></details>
    <details class="fold" open=${settings.format !== 'text'}><summary>Response format</summary>
      <${Format} settings=${settings} change=${change} error=${problems.response_format} /></details>
  </div>`;
}

function NumberField({row, settings, change, error}) {
  const {name, label, hint, step, low, high, whole} = row;
  const set = (value) => change({numbers: {...settings.numbers, [name]: value}});
  const keyed = (event) => {
    const turn = {ArrowUp: 1, ArrowDown: -1}[event.key];
    if (!turn) return;
    event.preventDefault();
    const now = Number(event.target.value || (low > 0 ? low - step : 0));
    if (Number.isFinite(now)) set(String(Number(Math.min(Math.max(now + turn * step, low), high).toFixed(2))));
  };
  return html`<${Field} label=${label} hint=${hint} error=${error}>${(given) => html`<input ...${given} placeholder="not sent"
    inputmode=${whole ? 'numeric' : 'decimal'} autocomplete="off" value=${settings.numbers[name] ?? ''} onKeyDown=${keyed}
    onInput=${(event) => set(event.target.value)} />`}<//>`;
}

// What ends lines is shown, so that it can be told from a space.
const shown = (text) => text.replaceAll('\n', '↵').replaceAll('\t', '⇥');

function Stops({stops, onChange, error}) {
  const [text, setText] = useState('');
  const [wrong, setWrong] = useState(null);
  const add = () => {
    const stop = unescaped(text);
    if (!stop) return;
    const problem = stopProblem(stops, stop);
    setWrong(problem);
    if (problem) return;
    onChange([...stops, stop]);
    setText('');
  };
  const keyed = (event) => {
    if (event.key !== 'Enter' || event.isComposing) return;
    event.preventDefault();
    add();
  };
  return html`<div class="stack stops">
    <${Field} label="Stop strings" hint="Literal text; \\n is a new line" error=${wrong ?? error}>${(given) => html`<div class="with-button">
      <input ...${given} value=${text} autocomplete="off" onKeyDown=${keyed} onInput=${(event) => { setText(event.target.value); setWrong(null); }} />
      <button type="button" disabled=${!text} onClick=${add}>Add</button></div>`}<//>
    ${stops.length > 0 && html`<ul class="chips" aria-label="Stops that are sent">${stops.map((stop) => html`<li key=${stop} class="chip">
      <code>${shown(stop)}</code><button type="button" class="quiet" aria-label=${`Remove ${shown(stop)}`}
        onClick=${() => onChange(stops.filter((each) => each !== stop))}><${Icon} name="close" size="13" /></button></li>`)}</ul>`}
  </div>`;
}

function Tools({settings, change, error}) {
  const tools = toolsOf(settings.tools).value ?? [];
  const names = tools.map((tool) => tool.function.name);
  const count = `${names.length} ${names.length === 1 ? 'tool' : 'tools'}: ${names.join(', ')}`;
  return html`<div class="stack">
    <${Code} label="Tools as JSON" rows="9" value=${settings.tools} error=${error} hint=${names.length ? count : 'A list, in the format of the API'}
      example=${EXAMPLE_TOOLS} onChange=${(text) => change({tools: text})} />
    ${names.length > 0 && html`<${Field} label="Tool choice">${(given) => html`<select ...${given} value=${settings.choice}
      onChange=${(event) => change({choice: event.target.value})}>
      <option value="">not sent: the model decides</option><option value="none">none</option><option value="required">required</option>
      ${names.map((name) => html`<option key=${name} value=${`=${name}`}>${name}</option>`)}</select>`}<//>`}
  </div>`;
}

function Format({settings, change, error}) {
  const schema = settings.format === 'json_schema';
  return html`<div class="stack">
    <${Field} label="Format" error=${schema ? null : error}>${(given) => html`<select ...${given} value=${settings.format}
      onChange=${(event) => change({format: event.target.value})}>
      ${Object.entries(FORMATS).map(([id, label]) => html`<option key=${id} value=${id}>${label}</option>`)}</select>`}<//>
    ${schema && html`<${Code} label="JSON schema" rows="9" value=${settings.schema} error=${error} example=${EXAMPLE_SCHEMA}
      hint="The answer must match it" onChange=${(text) => change({schema: text})} />`}
  </div>`;
}

// A field for JSON, and an example while it is empty.
function Code({label, hint, error, value, rows, example, onChange}) {
  return html`<${Field} label=${label} hint=${hint} error=${error}>${(given) => html`
    <textarea ...${given} class="mono" rows=${rows} spellcheck="false" autocapitalize="off" value=${value}
      onInput=${(event) => onChange(event.target.value)}></textarea>
    ${!value.trim() && html`<div><button type="button" class="small" onClick=${() => onChange(example)}>Insert an example</button></div>`}`}<//>`;
}
