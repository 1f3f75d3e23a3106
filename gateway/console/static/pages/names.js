// Narrowing down by key, team and model: three fields that know what there is, for usage and requests.
//
// Rule: what is typed counts when the field is left or Enter is pressed; a name that is not offered may be written
// as well, as that of a key which is gone.
import {get} from '../api.js';
import {keyName, typedKey} from '../format.js';
import {usePoll} from '../hooks.js';
import {html, useEffect, useId, useState} from '../lib.js';
import {Field} from '../parts/basic.js';

const FIELDS = [['key', 'Key', 'keys'], ['team', 'Team', 'teams'], ['model', 'Model', 'models']];

// `query`: of the address; `onChange` is given what changes of it.
export function Narrow({query, onChange}) {
  const {data} = usePoll(asked, 0);
  return FIELDS.map(([id, label, list]) => html`<${One} key=${id} label=${label} value=${shown(id, query[id])} offered=${data?.[list] ?? []}
    onChange=${(value) => onChange({[id]: id === 'key' ? typedKey(value) : value})} />`);
}

const shown = (id, value = '') => (id === 'key' ? keyName(value) : value);

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
    keys: names([...keys.map(({name}) => name), 'console']),
    teams: names(keys.map(({team}) => team)),
    models: names(models.map(({model}) => model)),
  };
}
