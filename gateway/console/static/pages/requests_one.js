// One request: what happened when, and all that the ledger has of it.
//
// Rule: what was sent and answered is shown as text, and only where the gateway keeps it.
import {get} from '../api.js';
import {usePoll} from '../hooks.js';
import {decimal, dollars, keyName, milliseconds, moment, number, percent, relative, seconds, teamName, unixOf} from '../format.js';
import {html} from '../lib.js';
import {Badge, Card, Copy, Failure, Head, Loading} from '../parts/basic.js';
import {href} from '../router.js';
import {costOf, gpuSeconds, outcome, phasesOf, speed} from './requests_facts.js';

export function One({id, query}) {
  const {data, error, refresh} = usePoll((signal) => get(`/admin/requests/${encodeURIComponent(id)}`, {}, {signal}), 0, [id]);
  const back = {href: href('requests', {query}), label: 'Requests'};
  const note = data && html`${moment(unixOf(data.time))}, ${relative(unixOf(data.time))}`;
  return html`
    <${Head} title="Request" note=${note} back=${back} actions=${html`<${Copy} text=${id} label="Copy ID" />`} />
    <${Failure} error=${error} retry=${refresh} />
    ${data ? html`<${Shown} row=${data} />` : !error && html`<${Loading} />`}`;
}

function Shown({row}) {
  const {text, tone} = outcome(row);
  const rate = speed(row);
  const only = (name, value, text = value) => value && html`<a href=${href('requests', {query: {[name]: value}})}>${text}</a>`;
  return html`
    <${Timeline} row=${row} />
    <div class="grid">
      <${Facts} title="Request" facts=${[
        ['ID', html`<span class="mono">${row.id}</span>`], ['Key', only('key', row.key_id, keyName(row.key_name))], ['Team', only('team', row.team) || teamName(null)],
        ['Model', only('model', row.model)], ['Requested model', row.asked], ['Upstream', row.upstream], ['Route', row.route],
        ['Streamed', row.streamed ? 'yes' : 'no'], ['End user', row.end_user], ['Client request ID', row.client_request_id]]} />
      <${Facts} title="Answer" facts=${[
        ['Outcome', html`<${Badge} tone=${tone}>${text}<//>`], ['Status', row.status ? String(row.status) : null], ['Code', row.code], ['Finish reason', row.finish],
        ['Tokens in', number(row.prompt_tokens)], ['Tokens out', number(row.completion_tokens)], ['Tokens counted by', row.tokens_source],
        ['Speed', rate && `${decimal(rate)} tokens/s`], ['GPU time', seconds(gpuSeconds(row))], ['GPU time source', row.gpu_source], ['Cost', dollars(costOf(row))]]} />
    </div>
    ${row.lost && html`<p class="note">The gateway was killed before this request ended, so its duration and usage are not known.</p>`}
    <${Content} content=${row.content} />`;
}

function Facts({title, facts}) {
  return html`<${Card} title=${title}><dl class="facts request-facts">
    ${facts.map(([label, value]) => html`<div key=${label}><dt>${label}</dt><dd>${value || html`<span class="muted">–</span>`}</dd></div>`)}
  </dl><//>`;
}

function Timeline({row}) {
  const phases = phasesOf(row);
  const end = row.duration_ms ?? 0;
  const actions = html`<span class="tabular"><span class="muted">total</span> <b>${milliseconds(row.duration_ms)}</b></span>`;
  if (!phases.length) return html`<${Card} title="Timeline" actions=${actions}><p class="note">Too short to measure.</p><//>`;
  return html`<${Card} title="Timeline" actions=${actions}>
    <div class="request-timeline" aria-hidden="true">${phases.map(({id, tone, from, to}) => html`<i key=${id} class=${`swatch ${tone}`} style=${{flexGrow: to - from}}></i>`)}</div>
    <div class="request-ends muted" aria-hidden="true"><span>0</span><span>${milliseconds(end)}</span></div>
    <ol class="request-phases">${phases.map(({id, label, from, to, tone}) => html`<li key=${id}>
      <i class=${`swatch ${tone}`}></i><span>${label}<span class="unseen">: </span></span><b>${milliseconds(to - from)}</b>
      <span class="muted"><span class="unseen">, </span>${percent((to - from) / end)}, from ${from ? milliseconds(from) : 'the start'} to ${to === end ? 'the end' : milliseconds(to)}</span></li>`)}</ol>
  <//>`;
}

function Content({content}) {
  if (!content) return html`<p class="note">The prompt and the answer were not kept. Set <code>store.log_content</code> in the configuration to keep them.</p>`;
  const {sent, answers, ...rest} = content;
  return html`<div class="grid">
    ${sent && html`<${Card} title="Sent to the model"><${Texts} values=${sent} /><//>`}
    ${answers && html`<${Card} title="Returned to the client"><${Texts} values=${answers} /><//>`}
    ${Object.keys(rest).length > 0 && html`<${Card} title="Content"><${Texts} values=${[rest]} /><//>`}
  </div>`;
}

const Texts = ({values}) => values.map((value, at) => html`<pre key=${at} class="request-content" tabindex="0">${textOf(value)}</pre>`);

// An answer of text alone is that text; whatever else is JSON.
function textOf(value) {
  if (typeof value === 'string') return value;
  const told = Object.entries(value ?? {}).filter(([, each]) => each !== null);
  const alone = told.length && told.every(([name]) => ['role', 'content', 'text'].includes(name)) ? value.content ?? value.text : null;
  return typeof alone === 'string' ? alone : JSON.stringify(value, null, 2);
}
