// What pages do again and again: ask every few seconds, run something once, count seconds.
//
// Rule: whatever is begun ends when its page is left.
import {useCallback, useEffect, useRef, useState} from './lib.js';

const LIMIT = 60; // seconds that one answer may take; the gateway gives its database half of that

// Asks `ask(signal)` now, whenever `deps` change, and every `seconds` while the page is seen (0: only once).
// {data, error, loading, refresh}: data stays what it was while there is an error, and when `seconds` becomes 0.
// A refresh while an answer is awaited asks again after it: that answer may be older than what was just changed.
export function usePoll(ask, seconds, deps = []) {
  const [state, setState] = useState({data: null, error: null, loading: true});
  const asked = useRef(null);
  const had = useRef(null); // the deps that the data is of
  const begin = useRef(() => {});
  asked.current = ask;
  useEffect(() => {
    const ending = new AbortController();
    let timer = 0;
    let running = false;
    let again = false;
    const once = async () => {
      clearTimeout(timer);
      again = running;
      if (running) return;
      running = true;
      try {
        const data = await bounded(asked.current, ending.signal);
        if (ending.signal.aborted) return;
        had.current = deps;
        setState({data, error: null, loading: false});
      } catch (error) {
        if (!ending.signal.aborted) setState((old) => ({...old, error, loading: false}));
      } finally {
        running = false;
        if (again && !ending.signal.aborted) once();
        else if (seconds && !ending.signal.aborted && !document.hidden) timer = setTimeout(once, seconds * 1000);
      }
    };
    const seen = () => (document.hidden ? clearTimeout(timer) : seconds && once());
    begin.current = once;
    const known = !seconds && (had.current?.every((dep, at) => dep === deps[at]) ?? false);
    setState((old) => ({...old, loading: !known}));
    if (!known) once();
    document.addEventListener('visibilitychange', seen);
    return () => {
      ending.abort();
      clearTimeout(timer);
      document.removeEventListener('visibilitychange', seen);
    };
  }, [seconds, ...deps]);
  const refresh = useCallback(() => begin.current(), []);
  return {...state, refresh};
}

// What `ask(signal)` gives; its signal ends with `ending`, or when it has taken too long.
async function bounded(ask, ending) {
  const own = new AbortController();
  const end = () => own.abort(ending.reason);
  const late = setTimeout(() => own.abort(new DOMException('The gateway took too long to answer.', 'TimeoutError')), LIMIT * 1000);
  ending.addEventListener('abort', end);
  try {
    return await ask(own.signal);
  } finally {
    clearTimeout(late);
    ending.removeEventListener('abort', end);
  }
}

// {busy, error, run}: runs one thing at a time; `run(...)` gives what `work(...)` gives, or undefined after an error.
export function useAction(work) {
  const [state, setState] = useState({busy: false, error: null});
  const latest = useRef(work);
  const busy = useRef(false);
  const gone = useRef(false);
  latest.current = work;
  useEffect(() => () => { gone.current = true; }, []);
  const run = useCallback(async (...given) => {
    if (busy.current) return undefined;
    busy.current = true;
    setState({busy: true, error: null});
    let error = null;
    try {
      return await latest.current(...given);
    } catch (caught) {
      error = caught;
      return undefined;
    } finally {
      busy.current = false;
      if (!gone.current) setState({busy: false, error});
    }
  }, []);
  const clear = useCallback(() => setState((old) => ({...old, error: null})), []);
  return {...state, run, clear};
}

// The time in unix seconds, again every `every` seconds while `on`.
export function useNow(every = 1, on = true) {
  const [now, setNow] = useState(() => Date.now() / 1000);
  useEffect(() => {
    if (!on) return undefined;
    const timer = setInterval(() => setNow(Date.now() / 1000), every * 1000);
    return () => clearInterval(timer);
  }, [every, on]);
  return now;
}
