// The request seen from both ends: the prompt that the model gets, and programs that send the same.
import {send} from '../api.js';
import {usePoll} from '../hooks.js';
import {html, useEffect, useState} from '../lib.js';
import {number} from '../format.js';
import {Copy, Empty, Failure, Loading, Tabs} from '../parts/basic.js';
import {LANGUAGES} from './snippets.js';

const PAUSE = 300; // milliseconds without typing before the prompt is asked for
const SHOWN = 40_000; // characters of a prompt

// What looks like a control string of some template, line ends, and what is not seen at all.
const WORDS = 's|bos|eos|eop|sop|unk|pad|sep|image|think|tools?|tool_calls?|tool_response|function_calls?|start_of_turn|end_of_turn';
const MARKED = new RegExp(
  String.raw`(<\|[^|<>\n]{1,48}\|>|<｜[^｜<>\n]{1,48}｜>|</?(?:${WORDS})>|\[/?[A-Z][A-Z_]{1,30}\]|\[gMASK\]|\n|[\u200b-\u200f\u2060\ufeff])`,
);

// `body`: of the chat as it would be sent now, or was sent last; null where nothing is said yet.
export function Prompt({body}) {
  const text = useSettled(body && JSON.stringify(body));
  const ask = (signal) => (text ? send('POST', '/v1/chat/completions/render', JSON.parse(text), {signal}) : null);
  const {data, error, loading} = usePoll(ask, 0, [text]);
  if (!body) return html`<${Empty} title="No message yet">Write a message to see what the model will read.<//>`;
  if (error && !loading) return html`<${Failure} error=${error} />`;
  if (!data) return html`<${Loading} />`;
  return html`<div class="stack prompt">
    <p class="note">What the model reads, rendered with its template. Viewing it calls no model.</p>
    ${data.prompt === null ? html`<p class="note">The model's server renders the prompt itself; this is what it receives.</p>`
      : html`<${Marked} text=${data.prompt} />`}
    ${data.stop.length > 0 && html`<div><h3>Stops at</h3><ul class="chips">${data.stop.map((stop) => html`<li key=${stop} class="chip">
      <code><${Pieces} text=${stop} /></code></li>`)}</ul></div>`}
    <details open=${data.prompt === null}><summary>Upstream call</summary>
      <pre class="code" tabindex="0" aria-label="Upstream call">${JSON.stringify(data.call, null, 2).slice(0, SHOWN)}</pre></details>
  </div>`;
}

function Marked({text}) {
  const cut = text.length > SHOWN;
  return html`<div class="code-box"><${Copy} text=${text} label="Copy" class="small" />
    <pre class="code" tabindex="0" role="region" aria-label="Rendered prompt"><${Pieces} text=${cut ? text.slice(0, SHOWN) : text} /></pre>
    ${cut && html`<p class="note">The first ${number(SHOWN)} of ${number(text.length)} characters.</p>`}
  </div>`;
}

function Pieces({text}) {
  return text.split(MARKED).map((piece, at) => {
    if (at % 2 === 0) return piece;
    if (piece === '\n') return html`<span class="line-end">${piece}</span>`;
    return piece.length === 1 ? html`<span class="hidden-sign" title=${`U+${piece.codePointAt(0).toString(16).toUpperCase().padStart(4, '0')}`}>${piece}</span>`
      : html`<mark>${piece}</mark>`;
  });
}

// The value once it has stayed the same for a moment.
function useSettled(value) {
  const [settled, setSettled] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(value), PAUSE);
    return () => clearTimeout(timer);
  }, [value]);
  return settled;
}

export function Programs({body}) {
  const [language, setLanguage] = useState('curl');
  const {label, make} = LANGUAGES.find(({id}) => id === language);
  if (!body) return html`<${Empty} title="No message yet">Write a message to see programs that send it.<//>`;
  const text = make(`${location.origin}/v1`, body);
  return html`<div class="stack">
    <${Tabs} label="Language" tabs=${LANGUAGES} value=${language} onChange=${setLanguage} />
    <p class="note">Sends the same request. The key comes from <code>OPENAI_API_KEY</code>; where no key is needed, any text will do.</p>
    <div class="code-box" role="tabpanel" aria-label=${label}><${Copy} text=${text} label=${`Copy as ${label}`} class="small" />
      <pre class="code program" tabindex="0" role="region" aria-label=${`${label} program`}>${text}</pre></div>
  </div>`;
}
