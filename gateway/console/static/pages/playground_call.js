// One call of a chat: what is sent, and the answer as it grows.
//
// Rule: the answer's object is changed in place, and `tell()` is called after each change. Times are seconds
// since the request was sent, by the browser's clock. Knows nothing of how an answer is shown.
import {ApiError, events, fromEnvelope, jsonOf, parsed, request} from '../api.js';

const PATH = '/v1/chat/completions';

// An answer of which nothing has come. `times`: when each piece came; `told`: the headers x-gateway-*;
// `extension`: what the usage chunk says beside the usage; `took`: seconds until the end, null before it.
export const begun = () => ({
  role: 'assistant', content: '', reasoning: '', calls: [], times: [], told: {}, extension: {}, usage: null,
  finish: null, requestId: null, took: null, stopped: false,
});

// Sends `body` and fills `answer`. Throws ApiError; AbortError once `signal` is aborted, which closes the call.
export async function ask(body, answer, {signal, tell}) {
  const began = performance.now();
  const since = () => (performance.now() - began) / 1000;
  try {
    await (body.stream ? streamed : whole)(body, answer, {signal, tell, since});
  } finally {
    answer.took = since();
  }
}

async function whole(body, answer, {signal, since}) {
  const response = await request('POST', PATH, {body, signal});
  heard(answer, response);
  const said = await jsonOf(response, signal);
  const failure = fromEnvelope(said, 0, answer.requestId); // the status was sent before it came to this
  if (failure) throw failure;
  const {message, finish_reason: finish} = said.choices?.[0] ?? {};
  if (!message) throw new ApiError('The answer holds no message.', {code: 'invalid_answer', requestId: answer.requestId});
  answer.times.push(since());
  grow(answer, {...message, tool_calls: message.tool_calls?.map((call, index) => ({...call, index}))});
  Object.assign(answer, {finish, usage: said.usage ?? null});
}

async function streamed(body, answer, {signal, tell, since}) {
  const {response, events: coming} = await events(PATH, body, {signal});
  heard(answer, response);
  tell();
  for await (const {data} of coming) {
    if (data === '[DONE]') return;
    const chunk = parsed(data, answer.requestId);
    const failure = fromEnvelope(chunk, 0, answer.requestId);
    if (failure) throw failure;
    const choice = chunk.choices?.[0];
    if (choice && grow(answer, choice.delta ?? {})) answer.times.push(since());
    if (choice?.finish_reason) answer.finish = choice.finish_reason;
    if (chunk.usage) answer.usage = chunk.usage;
    if (chunk.x_gateway) answer.extension = chunk.x_gateway;
    tell();
  }
  throw new ApiError('The connection was lost before the answer was complete.', {code: 'cut', requestId: answer.requestId});
}

function heard(answer, response) {
  answer.requestId = response.headers.get('x-request-id');
  for (const [name, value] of response.headers) {
    if (name.startsWith('x-gateway-')) answer.told[name.slice('x-gateway-'.length)] = value;
  }
}

// Whether there was anything in it.
function grow(answer, {content, reasoning_content: thought, tool_calls: calls}) {
  if (content) answer.content += content;
  if (thought) answer.reasoning += thought;
  for (const {index, id, function: said} of calls ?? []) {
    answer.calls[index] ??= {id: '', name: '', arguments: ''};
    const call = answer.calls[index];
    if (id) call.id = id;
    call.name += said?.name ?? '';
    call.arguments += said?.arguments ?? '';
  }
  return Boolean(content || thought || calls?.length);
}
