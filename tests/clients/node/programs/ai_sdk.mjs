// Every way in which the AI SDK reaches an OpenAI server, and what users do with each.
import { openai } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embedMany, generateObject, generateText, isStepCount, Output, streamText, tool } from "ai";
import { z } from "zod";

globalThis.AI_SDK_LOG_WARNINGS = false;
const tell = (name, value) => console.log(JSON.stringify([name, value]));
const compatible = createOpenAICompatible({
  name: "mine", baseURL: process.env.OPENAI_BASE_URL, apiKey: process.env.OPENAI_API_KEY,
});
const structured = createOpenAICompatible({
  name: "mine", baseURL: process.env.OPENAI_BASE_URL, apiKey: process.env.OPENAI_API_KEY,
  supportsStructuredOutputs: true, includeUsage: true,
});
const weather = tool({
  description: "The weather in a city.",
  inputSchema: z.object({ city: z.string() }),
  execute: ({ city }) => `sunny in ${city}`,
});
const looking = { tools: { weather }, stopWhen: isStepCount(5), prompt: "What is the weather in Paris?" };
const schema = z.object({ name: z.string(), age: z.number() });
const id = "gpt-4o-mini";
const models = { responses: openai(id), chat: openai.chat(id), compatible: compatible(id), structured: structured(id) };

for (const [api, model] of Object.entries(models)) {
  tell(`${api}: text`, (await generateText({ model, prompt: "count to 3", maxRetries: 0 })).text);
  const stream = streamText({ model, prompt: "count to 5", maxRetries: 0 });
  let text = "";
  for await (const piece of stream.textStream) text += piece;
  tell(`${api}: stream`, [text, await stream.finishReason]);
  const loop = await generateText({ model, ...looking, maxRetries: 0 });
  tell(`${api}: loop`, [loop.steps.length, loop.text]);
  const streamedLoop = streamText({ model, ...looking, maxRetries: 0 });
  tell(`${api}: streamed loop`, [await streamedLoop.text, (await streamedLoop.steps).length]);
  const messages = [{ role: "user", content: "count to 3" }];
  const { response } = await generateText({ model, messages, maxRetries: 0 });
  messages.push(...response.messages, { role: "user", content: "count to 4" });
  tell(`${api}: next turn`, (await generateText({ model, messages, maxRetries: 0 })).text);
  if (api === "compatible") continue; // it asks for any JSON, and the model knows nothing of the schema
  const prompt = '"Li" is 30.';
  tell(`${api}: object`, (await generateObject({ model, schema, prompt, maxRetries: 0 })).object);
  tell(`${api}: output`, (await generateText({ model, output: Output.object({ schema }), prompt, maxRetries: 0 })).output);
  tell(`${api}: streamed output`, await streamText({ model, output: Output.object({ schema }), prompt }).output);
}

for (const model of [openai.embedding("demo-embed"), compatible.embeddingModel("demo-embed")]) {
  const { embeddings } = await embedMany({ model, values: ["one", "two"] });
  tell(`embeddings by ${model.provider}`, embeddings.map((each) => each.length));
}
