// The console begins here: who is there, and then either the login or the page that the address names.
//
// Rule: without a session nothing is asked of the gateway but whether there is one.
import {whenExpired} from './api.js';
import {html, render, useEffect, useState} from './lib.js';
import {Loading} from './parts/basic.js';
import {Toasts, toast} from './parts/toast.js';
import {useRoute} from './router.js';
import {begin, current, end, takeTicket} from './session.js';
import {Shell} from './shell.js';
import Login from './pages/login.js';

const ticket = takeTicket();

// {session}, or what the login is drawn with: {open, failure}, without `open` where the gateway does not answer.
async function opened() {
  if (ticket) {
    try {
      return {session: await begin({ticket})};
    } catch (failure) {
      const found = await current(); // an older session may still hold
      return found.session ? found : {open: found.open, failure};
    }
  }
  const found = await current();
  if (!found.open) return found;
  return begin({}).then((session) => ({session}), (failure) => ({open: true, failure}));
}

function Console() {
  const [state, setState] = useState(null);
  const route = useRoute();
  const open = () => opened().then(setState);
  useEffect(() => {
    open();
    return whenExpired(async () => {
      const found = await current();
      if (found.open === undefined) return; // it holds, or nobody can say: the page tells what it was refused
      setState((old) => (old?.session ? {...found, reason: 'Your session has ended. Log in again to continue.'} : old));
    });
  }, []);
  const logout = async () => {
    try {
      await end();
    } catch (error) {
      toast(`Could not log out: ${error.message}`, 'bad');
      return;
    }
    setState({...await current(), reason: 'You are logged out.'});
  };
  if (!state) return html`<div class="waiting"><${Loading} /></div>`;
  if (!state.session) return html`<${Login} ...${state} onSession=${(session) => setState({session})} onRetry=${open} />`;
  return html`<${Shell} route=${route} session=${state.session} onLogout=${logout} />`;
}

render(html`<${Console} /><${Toasts} />`, document.getElementById('app'));
