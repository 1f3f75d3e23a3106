// run: node examples/node.mjs
// needs node 18 or newer
// A whole answer and a streamed one with the fetch that Node has built in.

const url = process.env.OPENAI_BASE_URL ?? "http://localhost:8000/v1";
const key = process.env.OPENAI_API_KEY ?? "unused";
const model = process.env.MODEL ?? "gpt-4o-mini";

async function ask(request) {
  const response = await fetch(`${url}/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
    body: JSON.stringify({ model, ...request }),
  });
  if (!response.ok) throw new Error(`${response.status}: ${(await response.json()).error.message}`);
  return response;
}

/** The chunks of a stream. An event is complete at its empty line, wherever the network cut it. */
async function* chunks(response) {
  let rest = "";
  for await (const text of response.body.pipeThrough(new TextDecoderStream())) {
    const events = (rest + text).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      if (!event.startsWith("data: ")) continue; // a comment that keeps the connection alive
      if (event === "data: [DONE]") return;
      const chunk = JSON.parse(event.slice("data: ".length));
      if (chunk.error) throw new Error(chunk.error.message);
      yield chunk;
    }
  }
  throw new Error("the stream ended early");
}

const messages = [{ role: "user", content: "你好" }];

const whole = await (await ask({ messages, stop: ["欢迎"] })).json();
console.log(whole.choices[0].message.content);

for await (const chunk of chunks(await ask({ messages, stream: true }))) {
  process.stdout.write(chunk.choices[0]?.delta.content ?? "");
}
console.log();

try {
  await ask({ messages, temperature: 3 });
} catch (error) {
  console.log(error.message);
}
