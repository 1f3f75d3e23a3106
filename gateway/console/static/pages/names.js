// Narrowing down by key, team and model: three fields that know what there is, for usage and requests.
//
// Rule: what is typed counts when the field is left or Enter is pressed; a name that is not offered may be written
// as well, as that of a key which is gone. The address has a key's id where one alone has the name: it stays when
// the key is renamed, and the ledger finds it sooner.
import {get} from '../api.js';
import {keyName, typedKey} from '../format.js';
import {usePoll} from '../hooks.js';
import {html, useEffect, useId, useState} from '../lib.js';
import {Field} from '../parts/basic.js';

const FIELDS = [['key', 'Key', 'keys'], ['team', 'Team', 'teams'], ['model', 'Model', 'models']];

// `query`: of the address; `onChange` is given what changes of it.
export function Narrow({query, onChange}) {
  const {data} = usePoll(asked, 0);
  return FIELDS.map(([id, label, list]) => html`<${One} key=${id} label=${label} value=${shown(id, query[id], data?.called)} offered=${data?.[list] ?? []}
    onChange=${(value) => onChange({[id]: typed(id, value, data?.called)})} />`);
}

const shown = (id, value = '', called = []) => (id === 'key' ? keyName(called.find((key) => key.id === value)?.name ?? value) : value);

function typed(id, text, called = []) {
  const named = called.filter(({name}) => id === 'key' && name === text);
  if (named.length === 1) return named[0].id;
  return id === 'key' ? typedKey(text) : text;
}

function One({label, value, offered, onChange}) {
  const list = useId();
  const [text, setText] = useState(value);
  useEffect(() => setText(value), [value]);
  return html`<${Field} label=${label}>${(given) => html`<input ...${given} type="search" list=${list} value=${text} placeholder="all"
      autocomplete="off" spellcheck=${false} onInput=${(event) => setText(event.target.value)}
      onChange=${(event) => onChange(event.target.value.trim())} />
    <datalist id=${list}>${offered.map((name) => html`<option key=${name} value=${name} />`)}</datalist>`}<//>`;
}

// What cannot be asked for is not offered; the fields work all the same.
async function asked(signal) {
  const of = (path) => get(path, {}, {signal}).then(({data}) => data, () => []);
  const [keys, models] = await Promise.all([of('/admin/keys'), of('/admin/upstreams')]);
  const names = (values) => [...new Set(values.filter(Boolean))].sort();
  return {
    called: keys,
    keys: names([...keys.map(({name}) => name), 'console']),
    teams: names(keys.map(({team}) => team)),
    models: names(models.map(({model}) => model)),
  };
}
