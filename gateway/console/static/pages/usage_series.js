// What was used, as series of a chart: the largest keys, teams or models on top of each other, and the others.
//
// Rule: pure. A slice in which nothing was used is zero, for the ledger knows that.
import {compact, dollars, keyName, number, seconds, teamName} from '../format.js';

export const BY = [{id: 'key', label: 'Key'}, {id: 'team', label: 'Team'}, {id: 'model', label: 'Model'}, {id: 'day', label: 'Day'}];
export const MEASURES = [{id: 'requests', label: 'Requests'}, {id: 'tokens', label: 'Tokens'}, {id: 'gpu_seconds', label: 'GPU time'}, {id: 'dollars', label: 'Cost'}];

const MOST = 6; // colours
const WRITTEN = {requests: number, tokens: compact, gpu_seconds: seconds, dollars};

export const writtenAs = (measure) => WRITTEN[measure];

export const amount = (line, measure) => (measure === 'tokens' ? line.prompt_tokens + line.completion_tokens : line[measure]);

// What a line is of: `id` tells it apart, `name` is for people, `value` what it is asked for by, null if it cannot be.
// A key is asked for by its id, which stays when its name changes.
export function whose(line, by) {
  if (by === 'key') return {id: line.key_id, name: keyName(line.key), value: line.key_id};
  const value = line[by] || null;
  return {id: value ?? '', name: by === 'team' ? teamName(value) : value ?? '', value};
}

// `slices`: for each the lines of what was used in it; `lines`: those of the whole span.
export function seriesOf(slices, lines, by, measure) {
  if (by === 'day') return parts(slices, measure);
  const ranked = [...lines].sort((a, b) => amount(b, measure) - amount(a, measure)).map((line) => whose(line, by));
  const largest = ranked.slice(0, ranked.length > MOST ? MOST - 1 : MOST);
  const found = largest.map(({id, name}) => ({label: name, values: slices.map((slice) => total(slice.filter((line) => whose(line, by).id === id), measure))}));
  if (ranked.length > largest.length) {
    const others = (line) => !largest.some(({id}) => id === whose(line, by).id);
    found.push({label: `${ranked.length - largest.length} others`, values: slices.map((slice) => total(slice.filter(others), measure))});
  }
  return toned(distinct(found));
}

const total = (lines, measure) => lines.reduce((sum, line) => sum + amount(line, measure), 0);

// Without anybody to tell apart, tokens are those in and out, and requests those that went well and did not.
function parts(slices, measure) {
  const of = (label, pick) => ({label, values: slices.map((slice) => slice.reduce((sum, line) => sum + pick(line), 0))});
  if (measure === 'tokens') return toned([of('Out', (line) => line.completion_tokens), of('In', (line) => line.prompt_tokens)]);
  if (measure === 'requests') {
    const [good, bad] = [of('OK', (line) => line.requests - line.errors), of('Errors', (line) => line.errors)];
    return [{...good, tone: 'series-1'}, {...bad, tone: 'series-6'}];
  }
  return toned([of(MEASURES.find(({id}) => id === measure).label, (line) => amount(line, measure))]);
}

const toned = (series) => series.map((one, at) => ({...one, tone: `series-${at + 1}`}));

// Two keys may have had one name, one after the other.
function distinct(series) {
  const seen = new Map();
  return series.map((one) => {
    const count = (seen.get(one.label) ?? 0) + 1;
    seen.set(one.label, count);
    return count > 1 ? {...one, label: `${one.label} (${count})`} : one;
  });
}
