// How each client shows a refusal and a stream that breaks. Prints [client, what, status, message].
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { ChatOpenAI } from "@langchain/openai";
import { generateText, streamText } from "ai";
import OpenAI from "openai";

const baseURL = process.env.OPENAI_BASE_URL;
const good = process.env.OPENAI_API_KEY;
const messages = (content) => [{ role: "user", content }];

const aiSdk = (make) => async (apiKey, model, content, stream) => {
  const asked = { model: make(apiKey)(model), prompt: content, maxRetries: 0 };
  if (!stream) return generateText(asked);
  for await (const part of streamText({ ...asked, onError: () => {} }).fullStream) if (part.type === "error") throw part.error;
};
const clients = {
  "openai-node": async (apiKey, model, content, stream) => {
    const client = new OpenAI({ apiKey, maxRetries: 0 });
    const answer = await client.chat.completions.create({ model, stream, messages: messages(content) });
    if (stream) for await (const _ of answer);
  },
  "openai-node responses": async (apiKey, model, input, stream) => {
    const client = new OpenAI({ apiKey, maxRetries: 0 });
    const answer = await client.responses.create({ model, stream, input });
    if (stream) for await (const event of answer) if (event.type === "response.failed") throw event.response.error;
  },
  langchain: async (apiKey, model, content, stream) => {
    const llm = new ChatOpenAI({ apiKey, model, maxRetries: 0 });
    if (!stream) return llm.invoke(content);
    for await (const _ of await llm.stream(content));
  },
  "ai responses": aiSdk((apiKey) => createOpenAI({ apiKey })),
  "ai chat": aiSdk((apiKey) => createOpenAI({ apiKey }).chat),
  "ai compatible": aiSdk((apiKey) => createOpenAICompatible({ name: "mine", baseURL, apiKey })),
};

for (const [client, ask] of Object.entries(clients)) {
  const cases = {
    key: ["sk-wrong", "obedient-7b", "say: hello", false],
    model: [good, "no-such-model", "say: hello", false],
    broken: [good, "obedient-7b", "break: one two", true],
  };
  for (const [what, asked] of Object.entries(cases)) {
    try {
      await ask(...asked);
      console.log(JSON.stringify([client, what, null, "no error"]));
    } catch (error) {
      console.log(JSON.stringify([client, what, error.status ?? error.statusCode ?? null, error.message ?? String(error)]));
    }
  }
}
