// What the playground sends: settings and messages become the body of a chat request.
//
// Rule: pure. What is not set is not sent. Ranges are the API's; what they cannot tell, the gateway does.
export const SAFE = Number.MAX_SAFE_INTEGER; // a larger whole number would not reach the gateway as it was typed
const MOST_STOPS = 16;
const LONGEST_STOP = 1024; // characters

// Fields that are numbers. `whole`: no fractions; `over`: `low` itself is not allowed; `more`: seldom used.
export const NUMBERS = [
  {name: 'temperature', label: 'Temperature', low: 0, high: 2, step: 0.1, hint: '0 to 2'},
  {name: 'max_tokens', label: 'Max tokens', low: 1, high: 2 ** 31, step: 1, whole: true, hint: 'in the answer'},
  {name: 'top_p', label: 'Top p', low: 0, high: 1, step: 0.05, hint: '0 to 1'},
  {name: 'seed', label: 'Seed', low: -SAFE, high: SAFE, step: 1, whole: true, hint: 'a whole number'},
  {name: 'top_k', label: 'Top k', low: -1, high: 2 ** 31, step: 1, whole: true, hint: '-1: off', more: true},
  {name: 'min_p', label: 'Min p', low: 0, high: 1, step: 0.05, hint: '0 to 1', more: true},
  {name: 'presence_penalty', label: 'Presence penalty', low: -2, high: 2, step: 0.1, hint: '-2 to 2', more: true},
  {name: 'frequency_penalty', label: 'Frequency penalty', low: -2, high: 2, step: 0.1, hint: '-2 to 2', more: true},
  {name: 'repetition_penalty', label: 'Repetition penalty', low: 0, high: 10, over: true, step: 0.1,
    hint: 'above 0, up to 10', more: true},
];

// Everything as it is typed; `choice`: '', none, required, or `=NAME` of a tool.
export const FRESH = {
  model: '', system: '', stream: true, numbers: {}, stops: [], effort: '', tools: '', choice: '', format: 'text', schema: '',
};

export const EXAMPLE_TOOLS = JSON.stringify([{
  type: 'function',
  function: {
    name: 'get_weather',
    description: 'The weather in a city.',
    parameters: {type: 'object', properties: {city: {type: 'string'}}, required: ['city']},
  },
}], null, 2);

export const EXAMPLE_SCHEMA = JSON.stringify({
  type: 'object',
  properties: {name: {type: 'string'}, age: {type: 'integer'}},
  required: ['name', 'age'],
  additionalProperties: false,
}, null, 2);

// {value} or {error}; value is undefined where nothing is typed.
export function numberOf(row, typed) {
  const text = (typed ?? '').trim().replace(',', '.');
  if (text === '') return {};
  const value = Number(text);
  if (!Number.isFinite(value)) return {error: 'This is not a number.'};
  if (row.whole && !Number.isSafeInteger(value)) return {error: 'This must be a whole number.'};
  if (value < row.low || (row.over && value === row.low) || value > row.high) {
    return {error: row.over ? `This must be above ${row.low} and at most ${row.high}.` : `This must be from ${row.low} to ${row.high}.`};
  }
  return {value};
}

function jsonOf(text) {
  try {
    return {value: JSON.parse(text)};
  } catch (error) {
    return {error: `This is not JSON: ${error.message}`};
  }
}

// {value: [...]} or {error}, also of nothing at all: an empty list.
export function toolsOf(text) {
  if (!text.trim()) return {value: []};
  const {value, error} = jsonOf(text);
  if (error) return {error};
  if (!Array.isArray(value)) return {error: 'This must be a list of tools: [{"type": "function", "function": {…}}].'};
  const wrong = value.findIndex((tool) => tool?.type !== 'function' || typeof tool.function?.name !== 'string');
  return wrong < 0 ? {value} : {error: `Tool ${wrong + 1} needs "type": "function" and a "function" with a "name".`};
}

// {value} or {error}.
export function schemaOf(text) {
  if (!text.trim()) return {error: 'Write a JSON schema.'};
  const {value, error} = jsonOf(text);
  if (error) return {error};
  return value !== null && typeof value === 'object' && !Array.isArray(value) ? {value} : {error: 'A schema must be an object.'};
}

// Why this cannot be one more stop string, or null.
export function stopProblem(stops, text) {
  if (stops.includes(text)) return 'This stop string is already in the list.';
  if (stops.length >= MOST_STOPS) return `At most ${MOST_STOPS} stop strings.`;
  return text.length > LONGEST_STOP ? `At most ${LONGEST_STOP} characters.` : null;
}

// `\n`, `\t` and `\\` as they are typed -> what they stand for
export const unescaped = (text) => text.replace(/\\([nt\\])/g, (_, letter) => ({n: '\n', t: '\t', '\\': '\\'})[letter]);

// What is wrong with the settings: {field: text}, by the names of the API's fields.
export function problemsOf(settings) {
  const found = {};
  for (const row of NUMBERS) {
    const {error} = numberOf(row, settings.numbers[row.name]);
    if (error) found[row.name] = error;
  }
  const tools = toolsOf(settings.tools);
  if (tools.error) found.tools = tools.error;
  if (settings.format === 'json_schema') {
    const {error} = schemaOf(settings.schema);
    if (error) found.response_format = error;
  }
  return found;
}

// The body of `POST /v1/chat/completions`. What has a problem is left out.
export function bodyOf(settings, messages) {
  const body = {model: settings.model, messages: spoken(settings.system, messages)};
  for (const row of NUMBERS) {
    const {value} = numberOf(row, settings.numbers[row.name]);
    if (value !== undefined) body[row.name] = value;
  }
  if (settings.stops.length) body.stop = settings.stops;
  if (settings.effort) body.reasoning_effort = settings.effort;
  Object.assign(body, toolFields(settings), formatFields(settings));
  if (settings.stream) Object.assign(body, {stream: true, stream_options: {include_usage: true}});
  return body;
}

function toolFields({tools: typed, choice}) {
  const tools = toolsOf(typed).value ?? [];
  if (!tools.length) return {};
  if (!choice) return {tools};
  if (!choice.startsWith('=')) return {tools, tool_choice: choice};
  const name = choice.slice(1);
  const there = tools.some((tool) => tool.function.name === name);
  return there ? {tools, tool_choice: {type: 'function', function: {name}}} : {tools};
}

function formatFields({format, schema}) {
  if (format === 'json_object') return {response_format: {type: 'json_object'}};
  const {value} = format === 'json_schema' ? schemaOf(schema) : {};
  return value ? {response_format: {type: 'json_schema', json_schema: {name: 'answer', schema: value}}} : {};
}

// Messages as the API takes them. An answer that says nothing is left out.
function spoken(system, messages) {
  const found = system.trim() ? [{role: 'system', content: system}] : [];
  for (const {role, content, calls = [], call} of messages) {
    if (role === 'tool') found.push({role, tool_call_id: call, content});
    else if (role === 'user') found.push({role, content});
    else if (calls.length) found.push({role, content: content || null, tool_calls: calls.map(called)});
    else if (content) found.push({role, content});
  }
  return found;
}

const called = ({id, name, arguments: text}) => ({id, type: 'function', function: {name, arguments: text}});
