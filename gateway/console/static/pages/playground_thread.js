// The conversation as it is seen: messages that can be changed, thoughts, calls of tools, and results for them.
//
// Rule: whatever a model or a person wrote is text, in its own line breaks; nothing of it is markup.
import {html, useEffect, useRef, useState} from '../lib.js';
import {Badge, Copy, Field} from '../parts/basic.js';
import {Icon} from '../parts/icons.js';
import {About, Parsed} from './playground_answer.js';

const WHO = {user: 'You', assistant: 'Assistant', tool: 'Result'};

// For the focus, when what had it has gone.
const settle = () => document.getElementById('playground-talk')?.focus({preventScroll: true});

export function Thread({chat, json, booked, waiting}) {
  const {messages, running} = chat;
  const last = messages.at(-1);
  const open = !running && last?.role === 'assistant' && last.calls.length > 0;
  return html`<ol class="thread" aria-label="Conversation">
    ${messages.map((message) => html`<${Message} key=${message.id} message=${message} chat=${chat} json=${json} booked=${booked}
      last=${message === last} growing=${message.id === running?.id} waiting=${waiting} />`)}
    ${open && html`<li key=${`results ${last.id}`}><${Results} calls=${last.calls} onGive=${chat.give} /></li>`}
  </ol>`;
}

function Message({message, chat, json, booked, last, growing, waiting}) {
  const [editing, setEditing] = useState(false);
  const place = useRef(null);
  const {role, content, name} = message;
  const edited = () => {
    setEditing(false);
    requestAnimationFrame(() => place.current?.querySelector('[title="Edit"]')?.focus());
  };
  const who = role === 'tool' ? `${WHO.tool} of ${name}` : WHO[role];
  return html`<li><article ref=${place} class=${`message ${role}`} aria-label=${who} aria-busy=${growing ? 'true' : null}>
    <div class="message-head">
      <h3>${who}</h3>
      ${!growing && !editing && html`<${Actions} message=${message} chat=${chat} who=${who} onEdit=${() => setEditing(true)} />`}
    </div>
    ${editing ? html`<${Edit} message=${message} who=${who} chat=${chat} onEnd=${edited} />`
      : role === 'assistant' ? html`<${Answer} answer=${message} growing=${growing} waiting=${waiting} />`
        : html`<p class="said">${content}</p>`}
    ${role === 'assistant' && !growing && html`
      ${json && !message.calls.length && !message.extension.json && !message.told.json && html`<${Parsed} text=${content} />`}
      <${About} answer=${message} last=${last} booked=${booked} />`}
  </article></li>`;
}

function Actions({message, chat, who, onEdit}) {
  const {id, role, content} = message;
  const busy = Boolean(chat.running);
  const act = (label, icon, run, moved = settle) => html`<button type="button" class="quiet small square" disabled=${busy}
    onClick=${() => { run(); moved(); }} aria-label=${`${label}: ${who}`} title=${label}><${Icon} name=${icon} size="15" /></button>`;
  return html`<div class="actions message-actions">
    ${content && html`<${Copy} text=${content} label=${html`<span class="unseen">Copy: ${who}</span>`} class="quiet small square" />`}
    ${act('Edit', 'edit', onEdit, () => {})}
    ${role === 'assistant' && act('Regenerate', 'refresh', () => chat.answerAgain(id))}
    ${act('Delete', 'trash', () => chat.remove(id))}
  </div>`;
}

function Edit({message, who, chat, onEnd}) {
  const {id, role} = message;
  const [text, setText] = useState(message.content);
  const area = useRef(null);
  useEffect(() => area.current.focus(), []);
  const save = () => {
    chat.edit(id, text);
    onEnd();
  };
  const resend = () => {
    if (chat.resend(id, text) === null) return; // the settings keep it from being sent
    onEnd();
    settle();
  };
  const keyed = (event) => {
    if (event.key !== 'Escape' || event.isComposing) return;
    event.stopPropagation();
    onEnd();
  };
  return html`<div class="stack" onKeyDown=${keyed}>
    <textarea ref=${area} rows="4" aria-label=${`Edit: ${who}`} value=${text} onInput=${(event) => setText(event.target.value)}></textarea>
    <div class="actions">
      ${role === 'user' && html`<button type="button" class="primary" disabled=${!text.trim() || Boolean(chat.running)}
        onClick=${resend}>Resend from here</button>`}
      <button type="button" disabled=${Boolean(chat.running)} onClick=${save}>Save</button>
      <button type="button" class="quiet" onClick=${onEnd}>Cancel</button>
    </div>
  </div>`;
}

function Answer({answer, growing, waiting}) {
  const {content, reasoning, calls} = answer;
  return html`<div class="stack">
    ${reasoning && html`<details class="reasoning"><summary>Reasoning${growing && !content ? '…' : ''}</summary><p class="said">${reasoning}</p></details>`}
    ${content && html`<p class=${`said ${growing ? 'growing' : ''}`}>${content}</p>`}
    ${calls.map((call, at) => html`<${Call} key=${call.id || at} ...${call} growing=${growing} />`)}
    ${growing && !content && !reasoning && !calls.length && waiting}
  </div>`;
}

function Call({id, name, arguments: text, growing}) {
  return html`<section class="call" aria-label=${`Call of ${name}`}>
    <div class="row"><${Badge} tone="accent">tool call<//><b class="mono">${name}</b><code class="muted">${id}</code></div>
    <pre>${growing ? text : pretty(text)}</pre>
  </section>`;
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text; // the model's own words, also where they are no JSON
  }
}

function Results({calls, onGive}) {
  const [texts, setTexts] = useState({});
  const give = (event) => {
    event.preventDefault();
    onGive(calls.map(({id, name}) => ({call: id, name, content: texts[id] ?? ''})));
    settle();
  };
  const ready = calls.every(({id}) => (texts[id] ?? '').trim());
  return html`<form class="results stack" onSubmit=${give} aria-label="Results of the calls">
    ${calls.map(({id, name}) => html`<${Field} key=${id} label=${`Result of ${name}`} hint="The tool's output, as the model will read it">
      ${(given) => html`<textarea ...${given} rows="2" placeholder='{"temperature": 21}' value=${texts[id] ?? ''}
        onInput=${(event) => setTexts({...texts, [id]: event.target.value})}></textarea>`}<//>`)}
    <div class="actions"><button type="submit" class="primary" disabled=${!ready}>Send ${calls.length > 1 ? 'results' : 'the result'}</button></div>
  </form>`;
}
