// The login: the admin key, or nothing where the admin API is open.
//
// Rule: the key goes to the gateway and is forgotten; no script keeps it. Where nobody can say whether one is
// needed, none is asked for.
import {html, useEffect, useRef, useState} from '../lib.js';
import {useAction} from '../hooks.js';
import {Failure, Field} from '../parts/basic.js';
import {Mark} from '../parts/mark.js';
import {begin} from '../session.js';

// `open`: no key is needed, undefined while the gateway does not answer; `failure`: an ApiError of what was tried;
// `reason`: why one is asked; `onRetry` asks the gateway again.
export default function Login({open, failure, reason, onSession, onRetry}) {
  useEffect(() => {
    document.title = 'Log in · modal-gateway';
  }, []);
  return html`<main class="login" id="main">
    <div class="card">
      <div class="login-head"><${Mark} /><h1>modal-gateway</h1></div>
      ${reason && html`<p class="note" role="status">${reason}</p>`}
      ${open === undefined ? html`<${Failure} error=${failure} retry=${onRetry} />`
        : html`<${Form} key=${open} open=${open} failure=${failure} onSession=${onSession} />`}
    </div>
  </main>`;
}

function Form({open, failure, onSession}) {
  const [key, setKey] = useState('');
  const field = useRef(null);
  const {busy, error, run} = useAction(async () => onSession(await begin(open ? {} : {key})));
  useEffect(() => field.current?.focus(), []);
  const submitted = async (event) => {
    event.preventDefault();
    await run();
    field.current?.select();
  };
  const told = error ?? failure;
  const wrong = told?.status === 401 ? told.message : null;
  return html`<form onSubmit=${submitted}>
    ${open ? html`<p>This gateway is open to this computer; no key is needed.</p>` : html`<${Field} label="Admin key" error=${wrong}
      hint="admin.key of the configuration, or MODAL_GATEWAY_ADMIN_KEY.">
      ${(given) => html`<input type="text" name="username" autocomplete="username" value="admin" hidden />
        <input ...${given} ref=${field} type="password" name="key" autocomplete="current-password"
        spellcheck=${false} required value=${key} onInput=${(event) => setKey(event.target.value)} />`}<//>`}
    <${Failure} error=${open || !wrong ? told : null} />
    <button type="submit" class="primary" disabled=${busy}>${open ? 'Open the console' : 'Log in'}</button>
  </form>`;
}
