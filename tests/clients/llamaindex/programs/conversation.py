"""LlamaIndex's OpenAILike and OpenAILikeEmbedding: prints what they got as one JSON object."""

import asyncio
import json

from llama_index.core.agent.workflow import AgentStream, FunctionAgent
from llama_index.core.llms import ChatMessage
from llama_index.core.program import FunctionCallingProgram
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike
from openai import BadRequestError
from pydantic import BaseModel

MODEL = "gpt-4o-mini"
WEATHER = "What is the weather in Paris for 3 days?"
calls: list[list[object]] = []


class Weather(BaseModel):
    """The weather of a city."""

    city: str
    days: int


def get_weather(city: str, days: int) -> str:
    """The weather of a city."""
    calls.append([city, days])
    return f"{city}: sun for {days} days"


async def streaming(agent: FunctionAgent) -> str:
    run = agent.run(WEATHER)
    deltas = [event.delta async for event in run.stream_events() if isinstance(event, AgentStream)]
    assert "".join(deltas).endswith(str(await run))
    return str(await run)


async def main() -> None:
    llm = OpenAILike(model=MODEL, is_chat_model=True, is_function_calling_model=True, max_retries=0)
    guided = OpenAILike(model=MODEL, is_chat_model=True, should_use_structured_outputs=True)
    bare = OpenAILike(model=MODEL)  # asks at /v1/completions
    said = [ChatMessage("count to 3")]
    whole = llm.chat(said)
    pieces = [chunk.delta for chunk in llm.stream_chat(said) if chunk.delta]
    further = await llm.achat([*said, whole.message, ChatMessage("count to 2")])

    agent = FunctionAgent(tools=[get_weather], llm=llm, streaming=False)
    told = str(await agent.run(WEATHER))
    told_again = await streaming(FunctionAgent(tools=[get_weather], llm=llm))

    called = FunctionCallingProgram.from_defaults(Weather, WEATHER, llm=llm)()
    structured = [llm.as_structured_llm(Weather).complete(WEATHER).raw, called]
    structured += [guided.as_structured_llm(Weather).complete(WEATHER).raw]

    embed = OpenAILikeEmbedding(model_name="text-embedding-3-small", embed_batch_size=2)
    vectors = embed.get_text_embedding_batch(["one", "two", "three"])
    try:
        llm.complete("count to 3", temperature=9)
    except BadRequestError as error:
        refused = str(error)
    print(
        json.dumps(
            {
                "chat": whole.message.content,
                "pieces": pieces,
                "further": further.message.content,
                "completed": [
                    bare.complete("count to 3").text,
                    "".join(chunk.delta for chunk in bare.stream_complete("count to 3")),
                ],
                "calls": calls,
                "told": [told, told_again],
                "structured": [each.model_dump() for each in structured],
                "vectors": [len(vector) for vector in vectors],
                "same": embed.get_query_embedding("three") == vectors[2],
                "refused": refused,
            }
        )
    )


asyncio.run(main())
