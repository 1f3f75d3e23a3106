"""Pydantic AI with `openai:` models, asked at /v1/responses: prints what it got as one JSON object."""

import asyncio
import json

from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.exceptions import ModelHTTPError

MODEL = "openai:gpt-4o-mini"
WEATHER = "What is the weather in Paris for 3 days?"


class Weather(BaseModel):
    city: str
    days: int


async def main() -> None:
    calls: list[list[object]] = []
    plain, tools = Agent(MODEL, instructions="Be brief."), Agent(MODEL)

    @tools.tool_plain
    def get_weather(city: str, days: int) -> str:
        """The weather of a city."""
        calls.append([city, days])
        return f"{city}: sun for {days} days"

    whole = await plain.run("count to 3")
    async with plain.run_stream("count to 3") as streamed:
        pieces = [piece async for piece in streamed.stream_text(delta=True, debounce_by=None)]
    further = await plain.run("count to 2", message_history=whole.all_messages())

    told = await tools.run(WEATHER)
    async with tools.run_stream(WEATHER) as again:
        told_again = await again.get_output()

    as_tool = await Agent(MODEL, output_type=Weather).run(WEATHER)
    native = Agent(MODEL, output_type=NativeOutput(Weather))
    guided = await native.run(WEATHER)
    async with native.run_stream(WEATHER) as partly:
        last = await partly.get_output()

    chat = await Agent("openai-chat:gpt-4o-mini", output_type=Weather).run(WEATHER)
    try:
        await plain.run("count to 3", model_settings={"temperature": 9})
    except ModelHTTPError as error:
        refused = str(error)
    print(
        json.dumps(
            {
                "chat": whole.output,
                "pieces": pieces,
                "further": further.output,
                "tokens": [whole.usage.output_tokens, streamed.usage.output_tokens],
                "calls": calls,
                "told": [told.output, told_again],
                "structured": [each.model_dump() for each in (as_tool.output, guided.output, last)],
                "chat_structured": chat.output.model_dump(),
                "refused": refused,
            }
        )
    )


asyncio.run(main())
