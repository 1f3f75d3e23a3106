// A chat request as programs that send it: curl, Python with openai, Python with LangChain.
//
// Rule: pure, and exact: what a program sends is the body that it was made of, whatever its texts hold. The key
// is never in it; it comes from the variable OPENAI_API_KEY.

// What openai-python and LangChain have no argument for.
const EXTRA = ['top_k', 'min_p', 'repetition_penalty'];
const WIDTH = 88; // of a line that is not broken

export const LANGUAGES = [
  {id: 'curl', label: 'curl', make: curl},
  {id: 'python', label: 'Python', make: python},
  {id: 'langchain', label: 'LangChain', make: langchain},
];

// `base`: the gateway's address up to and with /v1
export function curl(base, body) {
  return [
    `curl ${body.stream ? '-N' : '-s'} ${quoted(`${base}/chat/completions`)}`,
    '-H "Authorization: Bearer $OPENAI_API_KEY"',
    `-H 'content-type: application/json'`,
    `-d ${quoted(JSON.stringify(body, null, 2))}`,
  ].join(' \\\n  ');
}

// A word of the shell: between single quotes every character but the quote is itself.
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

export function python(base, body) {
  const {stream_options: _, ...rest} = body;
  const call = `client.chat.completions.create(${named(split(rest))})`;
  const shown = body.stream ? `stream = ${call}
for chunk in stream:
    for choice in chunk.choices:
        print(choice.delta.content or "", end="", flush=True)${body.tools ? `
        for call in choice.delta.tool_calls or []:
            print(call.function.name or "", call.function.arguments or "", sep="", end="", flush=True)` : ''}
print()` : `answer = ${call}
${body.tools ? `message = answer.choices[0].message
print(message.content or message.tool_calls)` : 'print(answer.choices[0].message.content)'}`;
  return `from openai import OpenAI

client = OpenAI(base_url=${literal(base)})

${shown}
`;
}

export function langchain(base, body) {
  const {messages, stream, stream_options: _, tools, tool_choice: choice, response_format: format, ...rest} = body;
  const bound = Object.entries({tools, tool_choice: choice, response_format: format}).filter(([, value]) => value !== undefined);
  const model = `ChatOpenAI(${named(split({base_url: base, ...rest}))})`;
  const chosen = bound.length ? `${model}.bind(${named(Object.fromEntries(bound))})` : model;
  const shown = stream ? `for chunk in llm.stream(messages):
    print(chunk.content, end="", flush=True)${tools ? `
    for call in chunk.tool_call_chunks:
        print(call["name"] or "", call["args"] or "", sep="", end="", flush=True)` : ''}
print()` : `answer = llm.invoke(messages)
print(${tools ? 'answer.content or answer.tool_calls' : 'answer.content'})`;
  return `from langchain_openai import ChatOpenAI

llm = ${chosen}
messages = ${literal(messages)}

${shown}
`;
}

// What has no argument of its own goes into extra_body.
function split(fields) {
  const entries = Object.entries(fields);
  const extra = entries.filter(([name]) => EXTRA.includes(name));
  const own = entries.filter(([name]) => !EXTRA.includes(name));
  return Object.fromEntries(extra.length ? [...own, ['extra_body', Object.fromEntries(extra)]] : own);
}

// {a: 1, b: 'x'} -> arguments of a call, each on a line of its own
function named(fields) {
  return `\n${Object.entries(fields).map(([name, value]) => `    ${name}=${literal(value, 1)},\n`).join('')}`;
}

// A value of JSON as Python writes it. A string of JSON is one of Python too.
function literal(value, depth = 0) {
  if (value === null) return 'None';
  if (typeof value === 'boolean') return value ? 'True' : 'False';
  if (typeof value !== 'object') return JSON.stringify(value);
  const list = Array.isArray(value);
  const parts = list ? value.map((each) => literal(each, depth + 1))
    : Object.entries(value).map(([name, each]) => `${JSON.stringify(name)}: ${literal(each, depth + 1)}`);
  const [open, close] = list ? '[]' : '{}';
  const line = `${open}${parts.join(', ')}${close}`;
  if (!line.includes('\n') && line.length + 4 * depth <= WIDTH) return line;
  const room = '    '.repeat(depth);
  return `${open}\n${parts.map((part) => `${room}    ${part},\n`).join('')}${room}${close}`;
}
