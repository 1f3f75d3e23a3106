// The newest requests, older ones behind them, and new ones as they come.
//
// Rule: a row is there once, in its place by time, whichever page brought it. If more came than one page holds,
// the list begins anew rather than with a hole in it. At most MOST rows stay while it follows.
import {get} from '../api.js';
import {useCallback, useEffect, useRef, useState} from '../lib.js';
import {usePoll} from '../hooks.js';

const PAGE = 50;
const MOST = 500;
const EVERY = 3; // seconds

// `page`: the newest rows. Gives what is shown then.
export function joined(shown, page) {
  const known = new Set(shown.rows.map(({id}) => id));
  const meets = page.data.some(({id}) => known.has(id));
  if (!page.next || !meets || shown.rows.length > MOST) return {rows: page.data, next: page.next};
  const added = page.data.filter(({id}) => !known.has(id));
  if (!added.length) return shown;
  return {rows: [...added, ...shown.rows].sort(newest), next: shown.next};
}

function newest(a, b) {
  const [left, right] = [a.time + a.id, b.time + b.id];
  return left < right ? 1 : left > right ? -1 : 0;
}

// `query`: what is asked; `live`: whether new rows come by themselves. {rows (null at first), next, error, more, busy, refresh}
export function useRequests(query, live) {
  const asked = JSON.stringify(query);
  const [shown, setShown] = useState(null); // {asked, rows, next}
  const [older, setOlder] = useState({busy: false, error: null});
  const current = useRef(asked);
  current.current = asked;
  const {data, error, refresh} = usePoll(async (signal) => ({asked, page: await get('/admin/requests', {...query, limit: PAGE}, {signal})}),
    live ? EVERY : 0, [asked]);
  useEffect(() => {
    if (data) setShown((old) => (old?.asked === data.asked ? {...joined(old, data.page), asked: data.asked} : {asked: data.asked, rows: data.page.data, next: data.page.next}));
  }, [data]);
  const next = shown?.next;
  const more = useCallback(async () => {
    setOlder({busy: true, error: null});
    try {
      const page = await get('/admin/requests', {...JSON.parse(asked), limit: PAGE, before: next});
      if (current.current === asked) setShown((old) => (old.next === next ? {...old, rows: [...old.rows, ...page.data], next: page.next} : old));
      setOlder({busy: false, error: null});
    } catch (failure) {
      setOlder({busy: false, error: failure});
    }
  }, [asked, next]);
  const mine = shown?.asked === asked ? shown : null;
  return {rows: mine?.rows ?? null, next: mine?.next ?? null, error: error ?? older.error, more, busy: older.busy, refresh};
}
