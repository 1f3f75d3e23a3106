// Spans of time, and the slices of them that a chart shows: hours, or whole days in UTC.
//
// Rule: pure. Unix seconds; the end is not included. A span is made of whole slices, and never of more than MOST.
export const RANGES = [{id: '24h', label: '24 hours'}, {id: '7d', label: '7 days'}, {id: '30d', label: '30 days'}, {id: 'custom', label: 'Custom'}];
export const MOST = 31;

const [HOUR, DAY] = [3600, 86_400];
const TIDY = [1, 2, 7, 14, 31]; // days of a slice

// {since, until, width}; `query`: {range, from, to}, where `from` and `to` are days like 2026-11-15, both included.
export function spanOf({range = '7d', from = '', to = ''}, now) {
  const tomorrow = (Math.floor(now / DAY) + 1) * DAY;
  if (range === '24h') {
    const until = (Math.floor(now / HOUR) + 1) * HOUR;
    return {since: until - 24 * HOUR, until, width: HOUR};
  }
  if (range !== 'custom') {
    const days = range === '30d' ? 30 : 7;
    return {since: tomorrow - days * DAY, until: tomorrow, width: DAY};
  }
  const first = midnight(from) ?? tomorrow - 7 * DAY;
  const until = Math.max((midnight(to) ?? tomorrow - DAY) + DAY, first + DAY);
  return {since: first, until, width: widthOf((until - first) / DAY)};
}

function widthOf(days) {
  if (days === 1) return HOUR;
  const wanted = Math.ceil(days / MOST);
  return (TIDY.find((tidy) => tidy >= wanted) ?? wanted) * DAY;
}

export function slicesOf({since, until, width}) {
  const count = Math.ceil((until - since) / width);
  return Array.from({length: count}, (_, at) => ({since: since + at * width, until: Math.min(since + (at + 1) * width, until)}));
}

// `lines` of the gateway, which say when their hour or day began, for each slice of the span.
export function sliced(lines, span) {
  const found = slicesOf(span).map(() => []);
  for (const line of lines) found[Math.floor((Date.parse(line.start) / 1000 - span.since) / span.width)].push(line);
  return found;
}

// What one bar of the chart is: 'hour', 'day (UTC)', '7 days'.
export const sliceName = ({width}) => (width === HOUR ? 'hour' : width === DAY ? 'day (UTC)' : `${width / DAY} days`);

export const isDays = ({width}) => width >= DAY;

// 2026-11-15, of a moment in UTC
export const dayName = (unix) => new Date(unix * 1000).toISOString().slice(0, 10);

// A moment as the gateway takes it.
export const isoOf = (unix) => new Date(unix * 1000).toISOString();

// Charts write times in the browser's zone: a day in UTC is moved so that it keeps its date there.
export const shown = (unix, span) => (isDays(span) ? unix + new Date(unix * 1000).getTimezoneOffset() * 60 : unix);

function midnight(day) {
  const at = /^\d{4}-\d\d-\d\d$/.test(day) ? Date.parse(`${day}T00:00:00Z`) : NaN;
  return Number.isNaN(at) ? null : at / 1000;
}
