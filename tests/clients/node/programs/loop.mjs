// Loops of the AI SDK over a model that reasons, speaks and calls in one turn. MODEL is asked.
// Prints for each way: the texts of whole and streamed loop, their steps, and the reasoning it shows.
import { openai } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, isStepCount, streamText, tool } from "ai";
import { z } from "zod";

const add = tool({
  description: "The sum.",
  inputSchema: z.object({ a: z.number(), b: z.number() }),
  execute: ({ a, b }) => a + b,
});
const compatible = createOpenAICompatible({
  name: "mine", baseURL: process.env.OPENAI_BASE_URL, apiKey: process.env.OPENAI_API_KEY,
});
const id = process.env.MODEL;
for (const model of [openai(id), openai.chat(id), compatible(id)]) {
  const asked = { model, tools: { add }, stopWhen: isStepCount(5), prompt: "1 + 2?", maxRetries: 0 };
  const whole = await generateText(asked);
  const streamed = streamText(asked);
  const texts = [whole.text, await streamed.text];
  const steps = [whole.steps, await streamed.steps];
  const shown = steps.map(([first]) => first.reasoningText ?? "");
  console.log(JSON.stringify([texts, steps.map((each) => each.length), shown]));
}
