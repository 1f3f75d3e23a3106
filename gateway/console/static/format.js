// Numbers, times, money, and names that may be missing, as people read them.
//
// Rule: pure, but for the clock and the time zone of the browser. What is unknown (null, undefined, NaN) is
// a dash. Times come in unix seconds, durations in seconds.

export const DASH = '–';

const whole = new Intl.NumberFormat('en', {maximumFractionDigits: 0});
const short = new Intl.NumberFormat('en', {notation: 'compact', maximumFractionDigits: 1});
const day = new Intl.DateTimeFormat('en-GB', {day: 'numeric', month: 'short', year: 'numeric'});
const time = new Intl.DateTimeFormat('en-GB', {hour: '2-digit', minute: '2-digit'});
const exact = new Intl.DateTimeFormat('en-GB', {hour: '2-digit', minute: '2-digit', second: '2-digit'});

const known = (value) => typeof value === 'number' && Number.isFinite(value);

// 12345 -> 12,345
export const number = (value) => (known(value) ? whole.format(value) : DASH);

// 12345 -> 12.3K; below 10,000 as it is
export const compact = (value) => {
  if (!known(value)) return DASH;
  return Math.abs(value) < 10_000 ? whole.format(value) : short.format(value);
};

// 0.25 -> 0.25, 3.21 -> 3.2, 123.4 -> 123
export const decimal = (value) => {
  if (!known(value)) return DASH;
  if (value === 0) return '0';
  const size = Math.abs(value);
  if (size < 1) return String(Number(value.toFixed(2)));
  return size < 100 ? String(Number(value.toFixed(1))) : compact(value);
};

// 0.0123 -> 12 ms, 3.2 -> 3.2 s, 75 -> 1 min 15 s, 7500 -> 2 h 5 min
export const seconds = (value) => {
  if (!known(value)) return DASH;
  if (value === 0) return '0 s';
  if (value < 0.001 && value > 0) return '< 1 ms';
  if (value < 0.9995) return `${Math.round(value * 1000)} ms`;
  if (value < 59.95) return `${Number(value.toFixed(1))} s`;
  const all = Math.round(value);
  if (all < 3600) return joined(Math.floor(all / 60), 'min', all % 60, 's');
  const minutes = Math.round(all / 60);
  if (minutes < 48 * 60) return joined(Math.floor(minutes / 60), 'h', minutes % 60, 'min');
  return joined(Math.floor(minutes / 1440), 'd', Math.floor((minutes % 1440) / 60), 'h');
};

const joined = (large, unit, small, below) => (small ? `${large} ${unit} ${small} ${below}` : `${large} ${unit}`);

export const milliseconds = (value) => (known(value) ? seconds(value / 1000) : DASH);

// 12.3456 -> $12.35; small sums keep two figures that count: 0.00123 -> $0.0012
export const dollars = (value) => {
  if (!known(value)) return DASH;
  const [sign, size] = [value < 0 ? '-' : '', Math.abs(value)];
  if (size === 0 || size >= 0.1) return `${sign}$${size.toLocaleString('en', {minimumFractionDigits: 2, maximumFractionDigits: 2})}`;
  if (size < 0.000001) return '< $0.000001';
  return `${sign}$${Number(size.toPrecision(2)).toFixed(Math.min(8, 1 - Math.floor(Math.log10(size))))}`;
};

// 0.123 -> 12.3 %
export const percent = (share) => (known(share) ? `${Number((share * 100).toFixed(1))} %` : DASH);

export const bytes = (value) => {
  if (!known(value)) return DASH;
  if (value < 1000) return `${value} B`;
  return value < 1e6 ? `${Number((value / 1e3).toFixed(1))} kB` : `${Number((value / 1e6).toFixed(1))} MB`;
};

// 2026-11-21T19:35:02Z -> unix seconds; null for what is no time
export const unixOf = (text) => (text && !Number.isNaN(Date.parse(text)) ? Date.parse(text) / 1000 : null);

// Who called without a key has this name in the ledger.
export const NO_KEY = '-';
const UNKEYED = 'no key';

export const keyName = (name) => (name === NO_KEY ? UNKEYED : name);
export const teamName = (team) => team || 'no team';

// The name of a key as somebody types it.
export const typedKey = (text) => (text === UNKEYED ? NO_KEY : text);

const date = (unix) => new Date(unix * 1000);

// 19:35:02
export const clock = (unix) => (known(unix) ? exact.format(date(unix)) : DASH);

// 19:35:02 of today, else 21 Nov 2026, 19:35
export const moment = (unix) => {
  if (!known(unix)) return DASH;
  const today = day.format(new Date()) === day.format(date(unix));
  return today ? exact.format(date(unix)) : `${day.format(date(unix))}, ${time.format(date(unix))}`;
};

// 21 Nov 2026
export const dayOf = (unix) => (known(unix) ? day.format(date(unix)) : DASH);

// 3 min ago, in 2 d; `now` in unix seconds
export const relative = (unix, now = Date.now() / 1000) => {
  if (!known(unix)) return DASH;
  const away = unix - now;
  const size = Math.abs(away);
  if (size < 5) return 'just now';
  const [amount, unit] = size < 60 ? [size, 's'] : size < 3600 ? [size / 60, 'min']
    : size < 172_800 ? [size / 3600, 'h'] : [size / 86_400, 'd'];
  const told = `${Math.floor(amount)} ${unit}`;
  return away < 0 ? `${told} ago` : `in ${told}`;
};
