"""LiteLLM's `openai/` models: prints what it got as one JSON object."""

import asyncio
import json
import warnings
from typing import Any

import litellm
from pydantic import BaseModel

MODEL = "openai/gpt-4o-mini"
WEATHER = [{"role": "user", "content": "What is the weather in Paris for 3 days?"}]
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
}
TOOL = {
    "type": "function",
    "function": {"name": "get_weather", "description": "The weather of a city.", "parameters": PARAMETERS},
}
calls: list[list[object]] = []

litellm.suppress_debug_info = True  # no advice on standard output
warnings.filterwarnings("ignore", message="Pydantic serializer warnings")  # of its own types


class Weather(BaseModel):
    city: str
    days: int


def texts(chunks: Any) -> list[str]:
    return [chunk.choices[0].delta.content for chunk in chunks if chunk.choices[0].delta.content]


def answered(asked: list[Any], message: Any) -> list[Any]:
    """The conversation with the calls of ``message`` carried out."""
    for call in message.tool_calls:
        arguments = json.loads(call.function.arguments)
        calls.append([arguments["city"], arguments["days"]])
        result = f"{arguments['city']}: sun for {arguments['days']} days"
        message = [message, {"role": "tool", "tool_call_id": call.id, "content": result}]
    return [*asked, *message]


def round_trip(**options: Any) -> str:
    """Ask, call, and ask again with the result."""
    first = litellm.completion(MODEL, WEATHER, tools=[TOOL], **options)
    if options:
        first = litellm.stream_chunk_builder(list(first), WEATHER)
    said = answered(WEATHER, first.choices[0].message)
    second = litellm.completion(MODEL, said, tools=[TOOL], **options)
    return "".join(texts(second)) if options else second.choices[0].message.content


def structured(**options: Any) -> Any:
    answer = litellm.completion(MODEL, WEATHER, response_format=Weather, **options)
    text = "".join(texts(answer)) if options else answer.choices[0].message.content
    return Weather.model_validate_json(text).model_dump()


asked = [{"role": "user", "content": "count to 3"}]
whole = litellm.completion(MODEL, asked)
chunks = list(litellm.completion(MODEL, asked, stream=True, stream_options={"include_usage": True}))
built = litellm.stream_chunk_builder(chunks, asked)
said = [*asked, whole.choices[0].message, {"role": "user", "content": "count to 2"}]
further = asyncio.run(litellm.acompletion(MODEL, said))
vectors = litellm.embedding("openai/text-embedding-3-small", ["one", "two", "three"]).data
try:
    litellm.completion(MODEL, asked, temperature=9)
except litellm.BadRequestError as error:
    refused = str(error)
print(
    json.dumps(
        {
            "chat": whole.choices[0].message.content,
            "pieces": texts(chunks),
            "further": further.choices[0].message.content,
            "tokens": [whole.usage.completion_tokens, built.usage.completion_tokens],
            "calls": [],
            "told": [round_trip(), round_trip(stream=True)],
            "structured": [structured(), structured(stream=True)],
            "vectors": [len(each["embedding"]) for each in vectors],
            "completed": litellm.text_completion(model=MODEL, prompt="count to 3").choices[0].text,
            "responses": litellm.responses(model=MODEL, input="count to 3").output[0].content[0].text,
            "refused": refused,
        }
        | {"calls": calls}
    )
)
