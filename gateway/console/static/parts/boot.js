// How far the boot of a model's container is: a bar that moves on between two answers of the gateway.
import {seconds} from '../format.js';
import {useNow} from '../hooks.js';
import {html, useRef} from '../lib.js';
import {Bar} from './basic.js';

// A row of `/admin/upstreams` whose container boots.
export function Boot({model, booting_for: since, until_warm: left, usual_boot: boot}) {
  const told = useRef({});
  const now = useNow(0.25);
  if (told.current.since !== since) told.current = {since, at: now};
  const passed = (since ?? 0) + Math.max(now - told.current.at, 0);
  const known = typeof boot === 'number' && boot > 0 && since !== null;
  const remaining = left === null || left === undefined ? null : Math.max(left - Math.max(now - told.current.at, 0), 0);
  const text = !known ? `Booting for ${seconds(Math.floor(passed))}; no earlier boot to compare with`
    : passed <= boot ? `Booting, about ${seconds(Math.max(Math.ceil(remaining), 1))} left`
      : `Booting for ${seconds(Math.floor(passed))}, longer than the usual ${seconds(boot)}`;
  return html`<div class="boot">
    <${Bar} tone="busy" value=${known ? Math.min(passed, boot * 0.98) : null} max=${known ? boot : 1} label=${`${model} boots`} text=${text} />
    <p class="note">${text}</p>
  </div>`;
}
