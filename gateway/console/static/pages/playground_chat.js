// The conversation of the playground: what was said, what is being answered, and what can be done with it.
//
// Rule: it lives in this page's memory for as long as the session does, and nowhere else: not in the browser's
// storage, and not after a reload. Leaving the playground ends the call that is running.
import {useEffect, useRef, useState} from '../lib.js';
import {FRESH} from './playground_body.js';
import {ask, begun} from './playground_call.js';

const REDRAWN = 50; // milliseconds between two drawings of a growing answer

let kept = {owner: null, settings: FRESH, messages: []};
let count = 0;
const numbered = (message) => ({...message, id: ++count});

// A new session finds nothing of an older one.
function memory(owner) {
  if (kept.owner !== owner) kept = {owner, settings: FRESH, messages: []};
  return kept;
}

// [settings, change]: change({temperature: ...}) keeps the rest.
export function useSettings(owner, first) {
  const [settings, set] = useState(() => ({...memory(owner).settings, ...first}));
  const change = (changed) => set((old) => (kept.settings = {...old, ...changed}));
  return [settings, change];
}

// `bodyFor(messages)` gives the body to send. The result's `running` is the message that grows, or null.
export function useChat(owner, bodyFor) {
  const [messages, setMessages] = useState(() => memory(owner).messages);
  const [running, setRunning] = useState(null);
  const [error, setError] = useState(null);
  const call = useRef(null);
  const body = useRef(bodyFor);
  body.current = bodyFor;
  useEffect(() => () => call.current?.abort(), []);
  const show = (list) => setMessages((kept.messages = list));

  const run = async (list) => {
    if (call.current) return;
    const [ending, answer] = [new AbortController(), numbered(begun())];
    call.current = ending;
    let timer = 0;
    const draw = () => {
      timer = 0;
      show([...list, {...answer, calls: answer.calls.filter(Boolean)}]);
    };
    setError(null);
    setRunning(answer.id);
    draw();
    try {
      await ask(body.current(list), answer, {signal: ending.signal, tell: () => { timer ||= setTimeout(draw, REDRAWN); }});
    } catch (failure) {
      if (ending.signal.aborted) answer.stopped = true;
      else setError(failure);
    } finally {
      clearTimeout(timer);
      call.current = null;
      draw();
      if (!answer.content && !answer.reasoning && !answer.calls.length && answer.finish === null) show(list);
      setRunning(null);
    }
  };

  const before = (id) => messages.slice(0, messages.findIndex((one) => one.id === id));
  return {
    messages,
    running: messages.find(({id}) => id === running) ?? null,
    error,
    fail: setError,
    say: (content) => run([...messages, numbered({role: 'user', content})]),
    again: () => run(asked(messages)),
    answerAgain: (id) => run(before(id)),
    edit: (id, content) => show(messages.map((one) => (one.id === id ? {...one, content, edited: true} : one))),
    resend: (id, content) => run([...before(id), numbered({role: 'user', content})]),
    remove: (id) => show(without(messages, id)),
    give: (results) => run([...messages, ...results.map(({call, name, content}) => numbered({role: 'tool', call, name, content}))]),
    stop: () => call.current?.abort(),
    clear: () => {
      setError(null);
      show([]);
    },
  };
}

// The messages up to what the last answer answers.
export function asked(messages) {
  return messages.at(-1)?.role === 'assistant' ? messages.slice(0, -1) : messages;
}

// Without this message; results of tools go with the answer that called them.
function without(messages, id) {
  const gone = messages.find((one) => one.id === id);
  const calls = (gone?.calls ?? []).map((call) => call.id);
  return messages.filter((one) => one.id !== id && !(one.role === 'tool' && calls.includes(one.call)));
}
