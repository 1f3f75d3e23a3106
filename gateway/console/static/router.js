// Where the person is, told by the address' hash: `#/requests/abc?model=x`.
//
// Rule: the hash is all there is; a link is `href(...)`, and going somewhere is `go(...)`.
import {useEffect, useMemo, useState} from './lib.js';

// {name: 'requests', id: 'abc' or null, query: {model: 'x'}}
export function routeOf(hash) {
  const [path, query = ''] = hash.replace(/^#\/?/, '').split('?', 2);
  const [name, ...rest] = path.split('/');
  const decoded = rest.map(plain).join('/');
  return {name: plain(name) || 'overview', id: decoded || null, query: Object.fromEntries(new URLSearchParams(query))};
}

function plain(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

// href('requests', {id: 'a/b', query: {model: 'x'}}) -> #/requests/a%2Fb?model=x; empty values are left out
export function href(name, {id = null, query = {}} = {}) {
  const kept = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== '');
  const asked = new URLSearchParams(kept).toString();
  return `#/${name}${id === null ? '' : `/${encodeURIComponent(id)}`}${asked ? `?${asked}` : ''}`;
}

// `replace` leaves no step in the history, for filters that follow what is typed.
export function go(name, where = {}, {replace = false} = {}) {
  const target = href(name, where);
  if (replace) {
    history.replaceState(null, '', target);
    dispatchEvent(new HashChangeEvent('hashchange'));
  } else {
    location.hash = target;
  }
}

export function useRoute() {
  const [hash, setHash] = useState(location.hash);
  useEffect(() => {
    const changed = () => setHash(location.hash);
    changed(); // it may have changed since this was drawn for the first time
    addEventListener('hashchange', changed);
    return () => removeEventListener('hashchange', changed);
  }, []);
  return useMemo(() => routeOf(hash), [hash]);
}
