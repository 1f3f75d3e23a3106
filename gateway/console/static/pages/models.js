// The models: the state of each upstream, how full it is, and a button that wakes a container.
//
// Rule: looking wakes nothing. What "cold" and the time left mean is the gateway's to say.
import {ApiError, get, lines} from '../api.js';
import {number, seconds} from '../format.js';
import {html, useEffect, useId, useRef, useState} from '../lib.js';
import {Badge, Bar, Card, Empty, Failure, Head, Loading, State} from '../parts/basic.js';
import {Boot} from '../parts/boot.js';
import {Icon} from '../parts/icons.js';
import {toast} from '../parts/toast.js';
import {usePoll} from '../hooks.js';
import {href} from '../router.js';

const EVERY = 2; // seconds
const ASLEEP = ['cold', 'unknown', 'stopped'];

export default function Models({session}) {
  const {data, error, refresh} = usePoll((signal) => get('/admin/upstreams', {}, {signal}), EVERY);
  const models = data && grouped(data.data);
  return html`
    <${Head} title="Models" note=${`Where each model runs and how busy it is${asSeen(session.workers)}. Viewing this page wakes no model.`} />
    <${Failure} error=${error} retry=${refresh} />
    ${!models ? !error && html`<${Loading} />`
      : models.length ? html`<div class="models">${models.map((model) => html`<${Model} key=${model.name} ...${model} refresh=${refresh} />`)}</div>`
        : html`<${Card}><${Empty} icon="models" title="No models are configured">
          Add one under <code>models</code> in the configuration.<//><//>`}`;
}

// Each worker knows its own calls and the states that they met.
const asSeen = (workers) => (workers > 1 ? `, as one of the ${number(workers)} workers sees it` : '');

// Rows of upstreams -> [{name, aliases, upstreams}], in the order of the configuration.
function grouped(rows) {
  const found = new Map();
  for (const row of rows) {
    if (!found.has(row.model)) found.set(row.model, {name: row.model, aliases: row.aliases ?? [], upstreams: []});
    found.get(row.model).upstreams.push(row);
  }
  return [...found.values()];
}

function Model({name, aliases, upstreams, refresh}) {
  const [progress, wake] = useWaking(name, refresh);
  const waking = progress !== null;
  const id = useId();
  const [first] = upstreams;
  const asleep = ASLEEP.includes(first.state);
  const actions = html`
    <a class="button small" href=${href('playground', {query: {model: name}})} aria-label=${`Try ${name} in the playground`}>Try it</a>
    ${(asleep || waking) && html`<button type="button" class="small" disabled=${waking} onClick=${wake}
      aria-label=${waking ? `Waking ${name}` : `Wake ${name}`}><${Icon} name="wake" size="15" />${waking ? 'Waking…' : 'Wake'}</button>`}`;
  return html`<article class="card model" aria-labelledby=${id}>
    <div class="card-head">
      <h2 id=${id}>${name}</h2>
      <div class="actions">${actions}</div>
    </div>
    ${aliases.length > 0 && html`<p class="note aliases">Aliases: ${aliases.join(', ')}</p>`}
    <ul class="upstreams">${upstreams.map((one) => html`<${Upstream} key=${one.name} ...${one}
      ...${one === first && told(one, progress)} alone=${upstreams.length === 1} />`)}</ul>
  </article>`;
}

// What the lines of progress say before the gateway counts the container as booting.
function told({state, usual_boot: boot}, progress) {
  if (!progress || !ASLEEP.includes(state)) return {waking: false};
  const {elapsed, expected} = progress;
  const usually = expected ?? boot ?? null;
  const left = usually === null ? null : Math.max(usually - elapsed, 0);
  return {waking: true, booting_for: elapsed, until_warm: left, usual_boot: usually};
}

function Upstream(one) {
  const {state, running, waiting, limit, circuit, kind, name, alone, observed, waking} = one;
  const full = limit > 0 && running >= limit;
  return html`<li class="upstream">
    <div class="row">
      <${State} value=${state} />
      ${!alone && html`<span class="mono">${name}</span>`}
      <${Badge}>${kind}<//>
      ${circuit === 'open' && html`<${Badge} tone="bad" title="It failed several times in a row and is tried last">circuit open<//>`}
    </div>
    ${(state === 'booting' || waking) && html`<${Boot} ...${one} />`}
    <dl class="facts">
      <div><dt>Running</dt><dd>${number(running)} <span class="muted">of ${number(limit)}</span>
        <${Bar} meter value=${running} max=${limit} tone=${full ? 'warn' : null} label="Slots in use" text=${`${running} of ${limit}`} /></dd></div>
      <div><dt>Waiting</dt><dd>${number(waiting)}</dd></div>
      <div><dt>Usual boot</dt><dd>${usual(one)}</dd></div>
      ${observed && html`<div><dt>Containers</dt><dd>${number(observed.runners)}
        ${observed.backlog > 0 && html`<span class="muted"> ${number(observed.backlog)} queued</span>`}</dd></div>`}
    </dl>
  </li>`;
}

const usual = ({usual_boot: boot}) => (boot === null || boot === undefined ? 'none yet' : seconds(boot));

// [the last line of progress or null, begin]: follows the lines to the end, also while one looks elsewhere.
function useWaking(name, refresh) {
  const [progress, setProgress] = useState(null);
  const gone = useRef(false);
  useEffect(() => () => { gone.current = true; }, []);
  const wake = async () => {
    setProgress({elapsed: 0, expected: null});
    try {
      let last = null;
      for await (const line of lines('POST', `/admin/models/${encodeURIComponent(name)}/warm`, {})) {
        last = line;
        if (gone.current) continue;
        setProgress(line);
        refresh();
      }
      if (!last) throw new ApiError('The answer was empty.', {code: 'cut'});
      toast(last.state === 'warm' ? `${name} is warm after ${seconds(last.elapsed)}` : `${name} is starting`, 'good');
    } catch (error) {
      toast(`Could not wake ${name}: ${error.message}`, 'bad');
    } finally {
      if (!gone.current) {
        setProgress(null);
        refresh();
      }
    }
  };
  return [progress, wake];
}
