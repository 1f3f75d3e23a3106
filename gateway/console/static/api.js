// What the console asks of the gateway: JSON, lines of JSON, and server-sent events.
//
// Rule: the session is a cookie that no script can read, so no secret is held here. Every failure is an
// `ApiError` with what the envelope said: also an answer that is cut, or is not what it should be. Knows nothing
// of pages; who wants to know of a session that has ended listens with `whenExpired`.

export class ApiError extends Error {
  // `status` is 0 where there was no answer. `param` names the field that was refused, or is null.
  constructor(message, {status = 0, code = null, param = null, type = null, requestId = null, body = null} = {}) {
    super(message);
    this.name = 'ApiError';
    Object.assign(this, {status, code, param, type, requestId, body});
  }
}

const listeners = new Set();

// Calls `listener` whenever the gateway says that there is no session; gives the function that ends this.
export function whenExpired(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

// `/admin/usage` and {by: 'key', since: null} -> `/admin/usage?by=key`; an array gives a name several times.
export function address(path, query = {}) {
  const wanted = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== null && one !== undefined && one !== '') wanted.append(name, one);
    }
  }
  return wanted.size ? `${path}?${wanted}` : path;
}

// The raw answer, whose status is good. Throws ApiError; an AbortError stays what it is.
export async function request(method, path, {query, body, signal, headers = {}, expires = true} = {}) {
  const init = {method, signal, headers: {...headers}, credentials: 'same-origin', cache: 'no-store'};
  if (method !== 'GET' && method !== 'HEAD') {
    init.headers['content-type'] = 'application/json';
    init.body = JSON.stringify(body ?? {});
  }
  let response;
  try {
    response = await fetch(address(path, query), init);
  } catch (error) {
    if (signal?.aborted || error.name === 'AbortError') throw stopped(error, signal);
    throw new ApiError('The gateway does not answer. Is it running?', {code: 'unreachable'});
  }
  if (response.ok) return response;
  const failure = await refusal(response);
  if (response.status === 401 && expires) for (const listener of listeners) listener(failure);
  throw failure;
}

async function refusal(response) {
  const [body, {status}] = [await response.json().catch(() => null), response];
  return fromEnvelope(body, status, idOf(response))
    ?? new ApiError(`The gateway answered with status ${status}.`, {status, requestId: idOf(response)});
}

const idOf = (response) => response.headers.get('x-request-id');

// The ApiError of an error envelope, also one inside a stream; null if it is none.
export function fromEnvelope(body, status = 0, requestId = null) {
  const error = body?.error;
  if (!error || typeof error !== 'object') return null;
  const {message = 'The gateway refused this.', code = null, param = null, type = null} = error;
  return new ApiError(message, {status, code, param, type, requestId, body});
}

// An answer's text as JSON.
export function parsed(text, requestId = null) {
  try {
    return JSON.parse(text);
  } catch {
    throw new ApiError('The answer is not valid JSON.', {code: 'invalid_answer', requestId});
  }
}

// The body of an answer as JSON.
export async function jsonOf(response, signal) {
  const text = await response.text().catch((error) => { throw lost(error, signal, idOf(response)); });
  return parsed(text, idOf(response));
}

// What is thrown where a call was aborted: it stays that, unless it had taken too long.
function stopped(error, signal) {
  return signal?.reason?.name === 'TimeoutError' ? new ApiError(signal.reason.message, {code: 'timeout'}) : error;
}

// What is thrown when reading an answer fails: what was aborted stays that.
function lost(error, signal, requestId) {
  if (signal?.aborted || error.name === 'AbortError') return stopped(error, signal);
  return new ApiError('The connection was lost before the answer was complete.', {code: 'cut', requestId});
}

export async function get(path, query, {signal, expires} = {}) {
  return jsonOf(await request('GET', path, {query, signal, expires}), signal);
}

// `send('PATCH', path, body)`: the answer as JSON, or null where it has none.
export async function send(method, path, body, {signal} = {}) {
  const response = await request(method, path, {body, signal});
  return response.status === 204 ? null : jsonOf(response, signal);
}

// Each value of an answer of JSON lines, as it comes. Throws ApiError also for a line that holds an error.
export async function* lines(method, path, body, {signal} = {}) {
  const response = await request(method, path, {body, signal});
  for await (const line of split(response, signal)) {
    if (!line.trim()) continue;
    const value = parsed(line, idOf(response));
    const failure = fromEnvelope(value, 0, idOf(response));
    if (failure) throw failure;
    yield value;
  }
}

// POSTs `body` and gives `{response, events}`: events are {event, data} of an event stream, data as text.
// A chat ends with data `[DONE]`; an error inside the stream is the reader's to see (`fromEnvelope`).
export async function events(path, body, {signal, headers} = {}) {
  const response = await request('POST', path, {body, signal, headers});
  return {response, events: fieldsOf(split(response, signal))};
}

async function* fieldsOf(coming) {
  let event = 'message';
  let data = [];
  for await (const line of coming) {
    if (line === '') {
      if (data.length) yield {event, data: data.join('\n')};
      [event, data] = ['message', []];
    } else if (line.startsWith('data:')) {
      data.push(line.slice(line[5] === ' ' ? 6 : 5));
    } else if (line.startsWith('event:')) {
      event = line.slice(6).trim();
    }
  }
}

// Lines of an answer, cut at \n or \r\n alone: JSON may hold other ends of lines in the raw.
async function* split(response, signal) {
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let rest = '';
  try {
    for (;;) {
      const {done, value} = await reader.read();
      rest += decoder.decode(value, {stream: !done});
      const found = rest.split('\n');
      rest = found.pop();
      for (const line of found) yield line.endsWith('\r') ? line.slice(0, -1) : line;
      if (done) break;
    }
    if (rest) yield rest;
  } catch (error) {
    throw lost(error, signal, idOf(response));
  } finally {
    await reader.cancel().catch(() => {}); // the gateway ends the call when nobody reads it any more
  }
}
