// Short notices at the page's edge, which screen readers are told of as well.
//
// Rule: a notice that matters later stands elsewhere too; an error stays until it is closed.
import {html, useEffect, useState} from '../lib.js';
import {Icon} from './icons.js';

const SECONDS = 6;
const MOST = 4;

let shown = [];
let told = () => {};
let count = 0;

function show(next) {
  shown = next.slice(-MOST);
  told(shown);
}

const close = (id) => show(shown.filter((one) => one.id !== id));

// `tone`: 'good', 'bad' or null.
export function toast(text, tone = null) {
  const id = ++count;
  show([...shown, {id, text, tone}]);
  if (tone !== 'bad') setTimeout(() => close(id), SECONDS * 1000);
}

// The place where notices appear; once, in the shell.
export function Toasts() {
  const [all, setAll] = useState(shown);
  useEffect(() => {
    told = setAll;
    return () => { told = () => {}; };
  }, []);
  return html`<div class="toasts" role="status" aria-live="polite">
    ${all.map(({id, text, tone}) => html`<div key=${id} class=${`toast ${tone ?? ''}`}>
      <span>${text}</span>
      <button type="button" class="quiet square" aria-label="Close this notice" onClick=${() => close(id)}>
        <${Icon} name="close" size="16" /></button>
    </div>`)}
  </div>`;
}
