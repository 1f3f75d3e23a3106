// The playground: a chat with any model, its settings, the prompt it becomes, and programs that send the same.
//
// Rule: everything goes over the API that other clients use, with the console's session.
import {get} from '../api.js';
import {number, seconds} from '../format.js';
import {useNow, usePoll} from '../hooks.js';
import {html, useEffect, useLayoutEffect, useMemo, useRef, useState} from '../lib.js';
import {Empty, Failure, Head, Loading, State, Tabs} from '../parts/basic.js';
import {Boot} from '../parts/boot.js';
import {Dialog} from '../parts/dialog.js';
import {Icon} from '../parts/icons.js';
import {go, href} from '../router.js';
import {bodyOf, NUMBERS, problemsOf} from './playground_body.js';
import {asked, useChat, useSettings} from './playground_chat.js';
import {Programs, Prompt} from './playground_prompt.js';
import {Settings} from './playground_settings.js';
import {Thread} from './playground_thread.js';

const EVERY = 3; // seconds between two looks at the models' states
const NEAR = 80; // pixels from the end within which the view follows what grows
const WIDE = '(min-width: 1080px)'; // there is room for the settings beside the chat
const HEARD = 2000; // characters of an answer that a screen reader is told of by itself
const PANELS = [{id: 'settings', label: 'Settings'}, {id: 'prompt', label: 'Prompt'}, {id: 'code', label: 'Code'}];

export default function Playground({route, session}) {
  const [settings, change] = useSettings(session.expires, route.query.model ? {model: route.query.model} : {});
  const choose = (model) => {
    change({model});
    go('playground', {query: {model}}, {replace: true});
  };
  useEffect(() => {
    if (route.query.model) change({model: route.query.model});
  }, [route.query.model]);
  const [text, setText] = useState('');
  const [drawer, setDrawer] = useState(false);
  const wide = useWide();
  const chat = useChat(session.expires, (messages) => bodyOf(settings, messages));
  const [tab, setTab, beside] = useTab(chat, wide);
  const models = useModels(settings.model, choose, chat.running?.id);
  const wrongs = useMemo(() => problemsOf(settings), [settings]);
  const guards = guarded(chat, wrongs, () => setTab('settings'));
  const next = text.trim() ? [...chat.messages, {role: 'user', content: text}] : asked(chat.messages);
  const body = next.length ? bodyOf(settings, next) : null;
  const say = () => guards.say(text) !== null && setText('');
  const panel = html`<${Panel} tab=${tab} onTab=${setTab} body=${body} settings=${settings} change=${change}
    problems=${{...atField(chat.error), ...wrongs}} />`;
  const actions = html`
    ${!wide && html`<button type="button" onClick=${() => setDrawer(true)}><${Icon} name="settings" />Settings</button>`}
    <button type="button" disabled=${!chat.messages.length || Boolean(chat.running)} onClick=${chat.clear}><${Icon} name="plus" />New chat</button>`;
  const booked = session.keeps.ledger;
  const note = `Requests are real${booked ? ' and recorded under the key name console' : ''}. Reloading the page clears the chat.`;
  return html`
    <${Head} title="Playground" note=${note} actions=${actions} />
    <div class="playground">
      <section class="card chat" aria-label="Chat">
        <${ModelChoice} models=${models} chosen=${settings.model} choose=${choose} />
        <${Talk} chat=${guards} settings=${settings} booked=${booked} />
        <${Composer} text=${text} onText=${setText} onSend=${say} onStop=${chat.stop} running=${Boolean(chat.running)} ready=${Boolean(settings.model)} />
      </section>
      ${wide && html`<aside ref=${beside} class="card panel" aria-label="Request">${panel}</aside>`}
    </div>
    ${!wide && drawer && html`<${Dialog} title="Request" side onClose=${() => setDrawer(false)}>${panel}<//>`}`;
}

// [tab, setTab, ref of the panel]: the settings at first; once there is an answer the prompt stands beside it, unless
// the person chose a tab or is in the panel. What is refused is shown at its field.
function useTab({messages, running, error}, wide) {
  const [chosen, choose] = useState(null);
  const beside = useRef(null);
  const answered = !running && messages.at(-1)?.role === 'assistant' ? messages.at(-1).id : null;
  useEffect(() => {
    if (answered && wide && !chosen && !beside.current.contains(document.activeElement)) choose('prompt');
  }, [answered, wide]);
  useEffect(() => {
    if (Object.keys(atField(error)).some((name) => Object.hasOwn(LABELS, name))) choose('settings');
  }, [error]);
  return [chosen ?? 'settings', choose, beside];
}

// The chat, of which nothing is sent while a setting is wrong: what would send gives null then.
function guarded(chat, wrongs, onWrong) {
  const [wrong] = Object.entries(wrongs);
  const unless = (act) => (...given) => {
    if (!wrong) return act(...given);
    onWrong();
    chat.fail({message: `${labelOf(wrong[0])}: ${wrong[1]}`, unsent: true});
    return null;
  };
  const {say, again, answerAgain, resend, give} = chat;
  const error = chat.error?.unsent && !wrong ? null : chat.error;
  return {
    ...chat, error, say: unless(say), again: unless(again), answerAgain: unless(answerAgain), resend: unless(resend), give: unless(give),
  };
}

// What the gateway refused, at the field that it names.
function atField(error) {
  const name = error?.param?.split(/[.[]/, 1)[0];
  return name ? {[name === 'max_completion_tokens' ? 'max_tokens' : name]: error.message} : {};
}

// The fields of the settings.
const LABELS = {
  ...Object.fromEntries(NUMBERS.map(({name, label}) => [name, label])),
  stop: 'Stop strings', reasoning_effort: 'Reasoning effort', tools: 'Tools', tool_choice: 'Tool choice', response_format: 'JSON schema',
};
const labelOf = (name) => LABELS[name] ?? name;

// {data, error, refresh} of the models; the first is chosen where none is. `running`: a call may change their states.
function useModels(chosen, choose, running) {
  const found = usePoll(async (signal) => (await get('/v1/models', {}, {signal})).data, EVERY, [running]);
  const first = found.data?.[0]?.id;
  useEffect(() => {
    if (!chosen && first) choose(first);
  }, [chosen, first]);
  return found;
}

function useWide() {
  const query = useMemo(() => matchMedia(WIDE), []);
  const [wide, setWide] = useState(query.matches);
  useEffect(() => {
    const changed = () => setWide(query.matches);
    query.addEventListener('change', changed);
    return () => query.removeEventListener('change', changed);
  }, []);
  return wide;
}

function ModelChoice({models, chosen, choose}) {
  const {data, error, refresh} = models;
  if (!data) return error ? html`<${Failure} error=${error} retry=${refresh} />` : html`<${Loading} label="Loading the models" />`;
  const there = data.find(({id}) => id === chosen);
  const option = ({id, root}) => html`<option key=${id} value=${id}>${id === root ? id : `${id} (${root})`}</option>`;
  const [own, aliases] = [data.filter(({id, root}) => id === root), data.filter(({id, root}) => id !== root)];
  return html`<div class="model-choice">
    <label class="unseen" for="playground-model">Model</label>
    <select id="playground-model" value=${chosen} onChange=${(event) => choose(event.target.value)}>
      ${!there && chosen && html`<option value=${chosen}>${chosen} (not available)</option>`}
      ${own.map(option)}
      ${aliases.length > 0 && html`<optgroup label="Aliases">${aliases.map(option)}</optgroup>`}
    </select>
    ${there && html`<${State} value=${there.x_gateway?.state ?? 'unknown'} />`}
  </div>`;
}

function Talk({chat, settings, booked}) {
  const {messages, running, error} = chat;
  const [box, heed] = useFollowing(messages, running?.id);
  const waiting = html`<${Waiting} model=${settings.model} />`;
  return html`<div id="playground-talk" class="talk" ref=${box} onScroll=${heed} tabindex="0" role="region" aria-label="Messages">
    ${messages.length ? html`<${Thread} chat=${chat} json=${settings.format !== 'text'} booked=${booked} waiting=${waiting} />`
      : html`<${Empty} icon="playground" title="No messages yet">Enter sends. Shift+Enter starts a new line.<//>`}
    <${Failure} error=${error} retry=${messages.length && !running && !error?.unsent ? chat.again : null} />
    ${booked && error?.requestId && html`<p class="note">Request <a class="mono" href=${href('requests', {id: error.requestId})}>${error.requestId}</a></p>`}
    <div class="unseen" aria-live="polite">${running ? 'The model is answering.' : heard(messages, error)}</div>
  </div>`;
}

// What a screen reader is told once an answer has ended.
function heard(messages, error) {
  const last = messages.at(-1);
  if (error || last?.role !== 'assistant') return '';
  const calls = last.calls.map(({name}) => `It calls ${name}.`).join(' ');
  return `${last.stopped ? 'Stopped' : 'Answer'}: ${last.content.slice(0, HEARD)} ${calls}`;
}

// [ref, onScroll]: keeps the end in view while it grows, unless the person goes up; what begins is gone to.
function useFollowing(messages, begun) {
  const box = useRef(null);
  const near = useRef(true);
  const scroller = () => (box.current.scrollHeight > box.current.clientHeight + 1 ? box.current : document.scrollingElement);
  const heed = () => {
    const place = scroller();
    near.current = place.scrollHeight - place.scrollTop - place.clientHeight < NEAR;
  };
  useEffect(() => {
    addEventListener('scroll', heed, {passive: true});
    return () => removeEventListener('scroll', heed);
  }, []);
  useLayoutEffect(() => {
    if (begun) near.current = true;
  }, [begun]);
  useLayoutEffect(() => {
    if (messages.length && near.current) scroller().scrollTop = scroller().scrollHeight;
  }, [messages]);
  return [box, heed];
}

// Before the first piece: how long it has been, and the container's boot if it is one.
function Waiting({model}) {
  const since = useRef(Date.now() / 1000);
  const now = useNow(1);
  const passed = Math.max(0, Math.floor(now - since.current));
  const {data} = usePoll(async (signal) => (await get('/admin/upstreams', {}, {signal})).data, 1);
  const rows = data?.filter((row) => row.model === model || row.aliases?.includes(model)) ?? [];
  const booting = rows.find(({state}) => state === 'booting');
  const unsure = !booting && passed >= 3 && rows.some(({state}) => state === 'unknown');
  const queued = rows.reduce((sum, {waiting}) => sum + waiting, 0);
  return html`<div class="waiting-answer stack">
    <p class="note"><span class="spinner"></span> ${booting ? `${booting.model} has no running container; one is booting` : 'Waiting for the first token'}${
      passed ? `, ${seconds(passed)}` : ''}${queued > 1 && !booting ? `; ${number(queued)} requests are queued` : ''}${
      unsure ? '; a container may be booting' : ''}</p>
    ${booting && html`<${Boot} ...${booting} />`}
  </div>`;
}

function Composer({text, onText, onSend, onStop, running, ready}) {
  const can = ready && !running && text.trim() !== '';
  const keyed = (event) => {
    if (event.isComposing) return;
    if (event.key === 'Escape' && running) onStop();
    if (event.key !== 'Enter' || event.shiftKey) return;
    event.preventDefault();
    if (can) onSend();
  };
  const act = () => (running ? onStop() : can && onSend());
  return html`<div class="composer">
    <textarea id="playground-message" aria-label="Message" rows="2" placeholder="Message" value=${text} onKeyDown=${keyed}
      onInput=${(event) => onText(event.target.value)}></textarea>
    <button type="button" class=${running ? '' : 'primary'} aria-disabled=${String(!running && !can)} onClick=${act}>
      <${Icon} name=${running ? 'stop' : 'send'} />${running ? 'Stop' : 'Send'}</button>
  </div>`;
}

function Panel({tab, onTab, body, settings, change, problems}) {
  return html`<div class="stack">
    <${Tabs} label="Request" tabs=${PANELS} value=${tab} onChange=${onTab} />
    <div role="tabpanel" aria-label=${PANELS.find(({id}) => id === tab).label}>
      ${tab === 'settings' && html`<${Settings} settings=${settings} change=${change} problems=${problems} />`}
      ${tab === 'prompt' && html`<${Prompt} body=${body} />`}
      ${tab === 'code' && html`<${Programs} body=${body} />`}
    </div>
  </div>`;
}
