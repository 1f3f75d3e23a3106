"""OpenAI's Agents SDK, which asks at /v1/responses: prints what it got as one JSON object."""

import asyncio
import json

from agents import Agent, ModelSettings, Runner, RunResultStreaming, function_tool, set_tracing_disabled
from openai import BadRequestError
from openai.types.responses import ResponseTextDeltaEvent
from pydantic import BaseModel

MODEL = "gpt-4o-mini"
WEATHER = "What is the weather in Paris for 3 days?"
calls: list[list[object]] = []


class Weather(BaseModel):
    city: str
    days: int


@function_tool
def get_weather(city: str, days: int) -> str:
    """The weather of a city."""
    calls.append([city, days])
    return f"{city}: sun for {days} days"


async def pieces_of(run: RunResultStreaming) -> list[str]:
    events = [event.data async for event in run.stream_events() if event.type == "raw_response_event"]
    return [event.delta for event in events if isinstance(event, ResponseTextDeltaEvent)]


async def main() -> None:
    plain = Agent(name="plain", instructions="Be brief.", model=MODEL)
    tools = Agent(name="tools", model=MODEL, tools=[get_weather])
    typed = Agent(name="typed", model=MODEL, output_type=Weather)
    desk = Agent(name="desk", model=MODEL, handoffs=[plain])

    whole = await Runner.run(plain, "count to 3")
    streamed = Runner.run_streamed(plain, "count to 3")
    pieces = await pieces_of(streamed)
    further = await Runner.run(plain, [*whole.to_input_list(), {"role": "user", "content": "count to 2"}])

    told = await Runner.run(tools, WEATHER)
    again = Runner.run_streamed(tools, WEATHER)
    await pieces_of(again)

    structured = await Runner.run(typed, WEATHER)
    partly = Runner.run_streamed(typed, WEATHER)
    await pieces_of(partly)

    handed = await Runner.run(desk, "transfer_to_plain")
    strange = Agent(name="strange", model=MODEL, model_settings=ModelSettings(temperature=9))
    try:
        await Runner.run(strange, "count to 3")
    except BadRequestError as error:
        refused = str(error)
    usages = [each.context_wrapper.usage.output_tokens for each in (whole, streamed)]
    print(
        json.dumps(
            {
                "chat": whole.final_output,
                "pieces": pieces,
                "further": further.final_output,
                "tokens": usages,
                "calls": calls,
                "told": [told.final_output, again.final_output],
                "structured": [each.final_output.model_dump() for each in (structured, partly)],
                "handed": handed.last_agent.name,
                "refused": refused,
            }
        )
    )


set_tracing_disabled(True)
asyncio.run(main())
