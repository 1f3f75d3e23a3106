// A key as its form holds it, and as the gateway takes it.
//
// Rule: pure. A form holds text; a number that is none goes to the gateway as it was typed, which then says what
// is wrong with it: nothing is dropped in silence. Times of the form are those of the browser's zone.
import {number} from '../format.js';

export const LIMITS = [
  {id: 'requests_per_minute', label: 'Requests per minute', short: 'requests/min'},
  {id: 'tokens_per_minute', label: 'Tokens per minute', short: 'tokens/min'},
  {id: 'requests_per_day', label: 'Requests per day', short: 'requests/day'},
  {id: 'concurrent', label: 'Concurrent requests', short: 'concurrent'},
];
export const UNITS = [{id: 'dollars', label: 'dollars'}, {id: 'tokens', label: 'tokens'}, {id: 'gpu_seconds', label: 'GPU seconds'}];
export const PERIODS = [
  {id: 'day', label: 'per day'}, {id: 'week', label: 'per week'}, {id: 'month', label: 'per month'}, {id: 'total', label: 'in total'},
];

// The form's values for a key of the gateway, or for a new one.
export function draftOf(key = {}) {
  const limits = LIMITS.map(({id}) => [id, textOf(key.limits?.[id])]);
  return {
    name: key.name ?? '',
    team: key.team ?? '',
    owner: key.owner ?? '',
    models: key.models ?? ['*'],
    tags: key.tags ?? [],
    expires: localOf(key.expires),
    limits: Object.fromEntries(limits),
    budgets: (key.budgets ?? []).map(budgetOf),
    priority: textOf(key.priority ?? 0),
    disabled: key.disabled ?? false,
  };
}

// {dollars: 20, tokens: null, gpu_seconds: null, per: 'month'} -> {amount: '20', unit: 'dollars', per: 'month'}
export function budgetOf(budget) {
  const unit = UNITS.find(({id}) => typeof budget[id] === 'number')?.id ?? 'dollars';
  return {amount: textOf(budget[unit]), unit, per: budget.per ?? 'month'};
}

// The body of a key that is made.
export function grantOf(draft) {
  return {
    name: draft.name.trim(),
    team: draft.team.trim() || null,
    owner: draft.owner.trim() || null,
    models: draft.models,
    tags: draft.tags,
    expires: isoOf(draft.expires),
    limits: Object.fromEntries(LIMITS.map(({id}) => [id, numberOf(draft.limits[id])])),
    budgets: draft.budgets.map(({amount, unit, per}) => ({[unit]: numberOf(amount), per})),
    priority: numberOf(draft.priority) ?? 0,
    disabled: draft.disabled,
  };
}

// The body of a key that is changed: what differs alone, so that what others changed meanwhile stays.
export function changesOf(key, draft) {
  const changes = differing(grantOf(draftOf(key)), grantOf(draft));
  if (changes.limits) changes.limits = differing(grantOf(draftOf(key)).limits, changes.limits);
  return changes;
}

function differing(before, after) {
  return Object.fromEntries(Object.entries(after).filter(([name, value]) => JSON.stringify(value) !== JSON.stringify(before[name])));
}

// What was wrong with a field: (name) => text or null. A field holds its parts: `budgets` is `budgets[0].per` too.
export function complaints(error) {
  const param = error?.param ?? '';
  return (name) => {
    const meant = param === name || param.startsWith(`${name}.`) || param.startsWith(`${name}[`);
    if (!param || !meant) return null;
    const words = error.message.startsWith(`${param}: `) ? error.message.slice(param.length + 2) : error.message;
    return words[0].toUpperCase() + words.slice(1);
  };
}

// Whether a field of the form can say it.
export const placed = (error) => Object.keys(draftOf()).some((name) => complaints(error)(name));

// '60 requests/min', '5 concurrent'
export const limitsOf = (limits = {}) => LIMITS.filter(({id}) => typeof limits?.[id] === 'number')
  .map(({id, short}) => `${number(limits[id])} ${short}`);

// So many days from now, as a field for times holds it.
export const daysFromNow = (days) => localOf(new Date(Date.now() + days * 86_400_000).toISOString());

const textOf = (value) => (value === null || value === undefined ? '' : String(value));

function numberOf(text) {
  const plain = text.trim();
  if (!plain) return null;
  return Number.isFinite(Number(plain)) ? Number(plain) : plain;
}

function localOf(iso) {
  const at = iso ? new Date(iso) : null;
  if (!at || Number.isNaN(at.getTime())) return '';
  return new Date(at.getTime() - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}

function isoOf(local) {
  const at = new Date(local);
  return Number.isNaN(at.getTime()) ? local || null : at.toISOString();
}
