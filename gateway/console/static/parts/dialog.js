// Dialogs: the browser's own, which keep the focus inside, close with Escape and give the focus back.
import {html, useEffect, useId, useRef} from '../lib.js';
import {Failure} from './basic.js';
import {Icon} from './icons.js';

// Shown for as long as it is drawn. `onClose` when the person wants it gone; `footer`: its buttons;
// `onSubmit` makes it a form; `wide`; `side`: a drawer at the edge; `locked`: only its own buttons close it.
export function Dialog({title, onClose, children, footer, onSubmit, wide = false, side = false, locked = false}) {
  const element = useRef(null);
  const id = useId();
  useEffect(() => {
    const dialog = element.current;
    const before = document.activeElement;
    dialog.showModal();
    return () => {
      dialog.close();
      if (before?.isConnected) before.focus();
    };
  }, []);
  const cancelled = (event) => {
    event.preventDefault(); // the page decides, and takes it away
    if (!locked) onClose();
  };
  const closed = () => { // a browser asks once, and closes it at the second Escape
    if (!element.current?.isConnected) return;
    if (locked) element.current.showModal();
    else onClose();
  };
  const submitted = (event) => {
    event.preventDefault();
    onSubmit?.(event);
  };
  const outside = (event) => event.target === element.current && !locked && onClose();
  return html`<dialog ref=${element} class=${`${wide ? 'wide' : ''} ${side ? 'drawer' : ''}`} aria-labelledby=${id}
    onCancel=${cancelled} onClose=${closed} onMouseDown=${outside}>
    <form novalidate onSubmit=${submitted}>
      <div class="dialog-head">
        <h2 id=${id}>${title}</h2>
        ${!locked && html`<button type="button" class="quiet square" aria-label="Close" onClick=${onClose}>
          <${Icon} name="close" /></button>`}
      </div>
      <div class="dialog-body">${children}</div>
      ${footer && html`<div class="dialog-foot">${footer}</div>`}
    </form>
  </dialog>`;
}

// A question before something that cannot be undone. `verb`: the button; `error`, `busy` of what it does.
export function Confirm({title, children, verb, danger = true, busy = false, error = null, onYes, onClose}) {
  const footer = html`<button type="button" onClick=${onClose}>Cancel</button>
    <button type="submit" class=${danger ? 'danger' : 'primary'} disabled=${busy}>${verb}</button>`;
  return html`<${Dialog} title=${title} onClose=${onClose} onSubmit=${onYes} footer=${footer}>
    ${children}<${Failure} error=${error} />
  <//>`;
}
