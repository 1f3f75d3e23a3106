// What LangChain in JavaScript does beside the page's program: streamed calls, the Responses API, embeddings.
import { HumanMessage, ToolMessage } from "@langchain/core/messages";
import { tool } from "@langchain/core/tools";
import { ChatOpenAI, OpenAIEmbeddings } from "@langchain/openai";
import { z } from "zod";

const tell = (name, value) => console.log(JSON.stringify([name, value]));
const weather = tool(({ city }) => `sunny in ${city}`, {
  name: "weather", description: "The weather in a city.", schema: z.object({ city: z.string() }),
});
const Person = z.object({ name: z.string(), age: z.number() });

for (const useResponsesApi of [false, true]) {
  const api = useResponsesApi ? "responses" : "chat";
  const llm = new ChatOpenAI({ model: "gpt-4o-mini", useResponsesApi, maxRetries: 0 });
  const asked = [new HumanMessage("What is the weather in Paris?")];
  const bound = llm.bindTools([weather]);
  let called;
  for await (const piece of await bound.stream(asked)) called = called ? called.concat(piece) : piece;
  const [{ name, args, id }] = called.tool_calls;
  tell(`${api}: streamed call`, [name, args]);
  tell(`${api}: usage`, called.usage_metadata.total_tokens > 0);
  const told = new ToolMessage({ tool_call_id: id, content: "sunny" });
  tell(`${api}: told`, (await bound.invoke([...asked, called, told])).text);
  for (const method of ["jsonSchema", "functionCalling"]) {
    tell(`${api}: ${method}`, await llm.withStructuredOutput(Person, { method }).invoke('"Li" is 30.'));
  }
}

const embeddings = new OpenAIEmbeddings({ model: "demo-embed", maxRetries: 0 });
const [one, two] = await embeddings.embedDocuments(["one", "two"]);
tell("embeddings", [one.length, two.length]);
tell("same numbers", JSON.stringify(await embeddings.embedQuery("one")) === JSON.stringify(one));
