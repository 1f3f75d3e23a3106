// What a row of the ledger says of a request, in words and as phases of time.
//
// Rule: pure. Milliseconds. The phases follow one another, and together are the whole time.

// {text, tone}: how it ended.
export function outcome({status, code, lost}) {
  if (lost) return {text: 'lost', tone: 'bad'};
  if (code === 'client_left' || status === 499) return {text: 'client left', tone: 'warn'};
  if (code || status >= 400) return {text: code ?? String(status), tone: 'bad'};
  return {text: String(status), tone: 'good'};
}

// [{id, label, from, to, tone}]: those that took any time.
export function phasesOf({queue_ms: queue, boot_ms: boot, first_event_ms: first, duration_ms: duration}) {
  const end = duration ?? 0;
  const within = (at, least) => Math.min(Math.max(at, least), end);
  const queued = within(queue ?? 0, 0);
  const booted = within(queued + (boot ?? 0), queued);
  const begun = first === null || first === undefined ? end : within(first, booted);
  return [
    {id: 'queue', label: 'Waited for a free slot', from: 0, to: queued, tone: 'series-2'},
    {id: 'boot', label: 'Waited for a container to boot', from: queued, to: booted, tone: 'series-3'},
    {id: 'first', label: first === null || first === undefined ? 'No token came' : 'Waited for the first token', from: booted, to: begun, tone: 'series-4'},
    {id: 'tokens', label: 'Generated tokens', from: begun, to: end, tone: 'series-1'},
  ].filter(({from, to}) => to > from);
}

// Tokens a second after the first; null if nobody can say.
export function speed({first_event_ms: first, duration_ms: duration, completion_tokens: tokens, streamed}) {
  const took = (duration - first) / 1000;
  return streamed && first !== null && tokens > 1 && took > 0 ? (tokens - 1) / took : null;
}

export const NANO = 1e9;

export const gpuSeconds = ({gpu_ns: nanoseconds}) => (nanoseconds === null ? null : nanoseconds / NANO);

export const costOf = ({cost}) => (cost === null ? null : cost / NANO);
