// What openai-node does beside the page's program: tools asked for by hand, the Responses API, embeddings.
import OpenAI from "openai";
import { zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const client = new OpenAI({ maxRetries: 0 });
const model = "gpt-4o-mini";
const tell = (name, value) => console.log(JSON.stringify([name, value]));

const function_ = { name: "weather", parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] } };
const messages = [{ role: "user", content: "What is the weather in Paris?" }];
const stream = client.chat.completions.stream({
  model, messages, tools: [{ type: "function", function: function_ }], stream_options: { include_usage: true },
});
const called = await stream.finalMessage();
tell("streamed call", JSON.parse(called.tool_calls[0].function.arguments));
tell("usage", (await stream.totalUsage()).total_tokens > 0);
messages.push(called, { role: "tool", tool_call_id: called.tool_calls[0].id, content: "sunny" });
const { choices: [{ message }] } = await client.chat.completions.create({ model, messages });
tell("told", message.content);

const response = await client.responses.create({ model, input: "count to 3" });
tell("response", response.output_text);
const events = await client.responses.stream({ model, input: "count to 3" });
tell("streamed response", (await events.finalResponse()).output_text);
const Person = z.object({ name: z.string(), age: z.number() });
const format = zodTextFormat(Person, "person");
tell("parsed", (await client.responses.parse({ model, input: '"Li" is 30.', text: { format } })).output_parsed);

const { data } = await client.embeddings.create({ model: "demo-embed", input: ["one", "two"] });
tell("embeddings", data.map((each) => each.embedding.length));
const asFloats = { model: "demo-embed", input: "one", encoding_format: "float" };
const [alone] = (await client.embeddings.create(asFloats)).data;
tell("same numbers", alone.embedding.every((x, i) => Math.abs(x - data[0].embedding[i]) < 1e-6));
tell("models", (await client.models.list()).data[0].id);
