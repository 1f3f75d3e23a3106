// What is known of an answer: how it ended, tokens, times, cost, and what the gateway's headers say.
import {dollars, milliseconds, number, seconds} from '../format.js';
import {html} from '../lib.js';
import {Badge} from '../parts/basic.js';
import {href} from '../router.js';
import {Timeline} from './timeline.js';

const ENDS = {stop: 'good', tool_calls: 'accent', length: 'warn', content_filter: 'warn'};
const VERDICTS = {guaranteed: 'good', validated: 'good', repaired: 'warn'};
const COUNTED = {upstream: "counted by the model's server", tokenizer: "counted by the model's tokenizer", estimate: 'an estimate'};

// `last`: the newest answer shows its times at once; `booked`: there is a page of the request.
export function About({answer, last, booked}) {
  const {told, extension, usage, finish, stopped, edited, took, times, requestId} = answer;
  const say = (name) => extension[name.replaceAll('-', '_')] ?? told[name];
  const counted = say('usage');
  const facts = [
    ['Tokens in', usage && number(usage.prompt_tokens)],
    ['Tokens out', usage && number(usage.completion_tokens)],
    ['Total time', took !== null && seconds(took)],
    ['GPU time', say('gpu-ms') && milliseconds(Number(say('gpu-ms')))],
    ['Cost', say('cost') && dollars(Number(say('cost')))],
    ['Queue', told['queue-ms'] > 0 && milliseconds(Number(told['queue-ms']))],
    ['Boot', told['boot-ms'] && milliseconds(Number(told['boot-ms']))],
    ['Upstream', told['upstream-state']],
  ].filter(([, value]) => value);
  return html`<div class="about">
    <div class="row">
      ${finish && html`<${Badge} tone=${ENDS[finish]} title="Why the answer ended (finish_reason)">${finish}<//>`}
      ${stopped && html`<${Badge} tone="warn">stopped by you<//>`}
      ${edited ? html`<${Badge} tone="warn">edited by you<//>` : html`<${Verdict} verdict=${say('json')} />`}
      ${told.ignored && html`<${Badge} tone="warn" title="These fields had no effect">ignored: ${told.ignored}<//>`}
      ${told.neutralised && html`<${Badge} title="Control strings of the template in the messages, passed on as plain text">${told.neutralised} control strings neutralised<//>`}
    </div>
    <dl class="about-facts">${facts.map(([label, value]) => html`<div key=${label}><dt>${label}</dt>
      <dd title=${label.startsWith('Tokens') && counted ? COUNTED[counted] : null}>${value}${label.startsWith('Tokens') && counted === 'estimate' ? ' ≈' : ''}</dd></div>`)}
    </dl>
    ${times.length > 1 && html`<details open=${last}><summary>Token times</summary>
      <${Timeline} times=${times} tokens=${usage?.completion_tokens ?? null} /></details>`}
    ${requestId && html`<p class="note request"><span class="unseen">Request </span>${booked
      ? html`<a class="mono" href=${href('requests', {id: requestId})}>${requestId}</a>` : html`<code>${requestId}</code>`}</p>`}
  </div>`;
}

function Verdict({verdict}) {
  return verdict ? html`<${Badge} tone=${VERDICTS[verdict]} title="Whether the JSON is guaranteed by the model, validated or repaired">JSON ${verdict}<//>` : null;
}

// Whether a text is JSON, said while nobody else has judged it; null for one that is still growing.
export function Parsed({text, growing}) {
  if (growing || !text.trim()) return null;
  try {
    JSON.parse(text);
    return html`<${Badge} tone="good">valid JSON<//>`;
  } catch (error) {
    return html`<${Badge} tone="bad" title=${error.message}>invalid JSON<//>`;
  }
}
