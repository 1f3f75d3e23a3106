// Budgets as bars: how much of each is used.
//
// Rule: what is not known (the ledger does not answer) is no zero; then the bound stands alone.
import {compact, dollars, seconds} from '../format.js';
import {html} from '../lib.js';
import {Bar} from '../parts/basic.js';
import {PERIODS, UNITS} from './keys_values.js';

const WRITTEN = {dollars, gpu_seconds: seconds, tokens: compact};
const NEARLY = 0.8; // of a budget

// `budgets`: [{per, unit, limit, used}], `used` null if it is not known; `whose` for screen readers.
export function Budgets({budgets, whose}) {
  if (!budgets.length) return html`<span class="muted">none</span>`;
  return html`<ul class="budget-bars">${budgets.map((one) => html`<${Budget} key=${`${one.unit} ${one.per}`} ...${one} whose=${whose} />`)}</ul>`;
}

function Budget({per, unit, limit, used, whose}) {
  const written = WRITTEN[unit] ?? String;
  const bound = `${written(limit)}${unit === 'dollars' ? '' : unit === 'tokens' ? ' tokens' : ' GPU time'}`;
  const period = PERIODS.find(({id}) => id === per)?.label ?? per;
  const share = limit > 0 ? used / limit : 1;
  const tone = share >= 1 ? 'bad' : share >= NEARLY ? 'warn' : null;
  if (used === null) return html`<li>${bound} ${period}</li>`;
  return html`<li>
    <span class="tabular">${written(used)} <span class="muted">of ${bound} ${period}</span></span>
    <${Bar} meter value=${used} max=${limit} tone=${tone} label=${`Budget of ${whose}`}
      text=${`${written(used)} of ${bound} ${period}${share >= 1 ? ', used up' : ''}`} />
  </li>`;
}

// Budgets of a key as it was given to it, where nothing says what is used.
export const unused = (budgets = []) => budgets.map((budget) => {
  const unit = UNITS.find(({id}) => typeof budget[id] === 'number')?.id ?? 'tokens';
  return {per: budget.per, unit, limit: budget[unit], used: null};
});
