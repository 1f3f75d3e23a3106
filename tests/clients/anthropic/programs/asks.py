"""Everything that Anthropic's SDK asks of the gateway at DEMO_URL, and of the one with keys at GUARDED_URL.

Prints one JSON object: what each call gave.
"""

import asyncio
import json
import os
from collections.abc import Callable
from typing import Any

import anthropic
from anthropic import Anthropic, AsyncAnthropic, beta_tool
from pydantic import BaseModel

MODEL = "chatglm2-6b"
WEATHER = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
QUESTION = [{"role": "user", "content": "What is the weather in Rome?"}]


class Person(BaseModel):
    name: str
    age: int


def asking(said: str, **fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "max_tokens": 300, "messages": [{"role": "user", "content": said}], **fields}


def whole(client: Anthropic) -> Any:
    sampling = {"temperature": 0.5, "top_k": 5}  # which this version has no names for
    answer = client.messages.create(**asking("你好", system="Be brief.", extra_body=sampling))
    return {**answer.to_dict(), "request": answer._request_id}


def cut_short(client: Anthropic) -> Any:
    return client.messages.create(**asking("count to 10", max_tokens=3)).to_dict()


def stopped(client: Anthropic) -> Any:
    with client.messages.stream(**asking("count to 10", stop_sequences=["20", " 4"])) as stream:
        said = "".join(stream.text_stream)
        final = stream.get_final_message()
    return {"said": said, "reason": final.stop_reason, "sequence": final.stop_sequence}


def streamed(client: Anthropic) -> Any:
    with client.messages.create(**asking("count to 10"), stream=True) as stream:
        events = [event.to_dict() for event in stream]
    with client.messages.stream(**asking("count to 10")) as stream:
        final = stream.get_final_message().to_dict()
    whole = client.messages.create(**asking("count to 10")).to_dict()
    return {"events": events, "final": final, "whole": whole}


def side_by_side(client: Anthropic) -> Any:
    async def ask() -> list[str]:
        async with AsyncAnthropic(base_url=str(client.base_url), api_key="unused") as other:

            async def one(number: int) -> str:
                async with other.messages.stream(**asking(f"count to {number}")) as stream:
                    return "".join([text async for text in stream.text_stream])

            return await asyncio.gather(*(one(number) for number in (2, 3, 4)))

    return asyncio.run(ask())


def tools(client: Anthropic) -> Any:
    """A call, its result, and what the model makes of it; the answer goes back as it came."""
    fields = {"model": MODEL, "max_tokens": 300, "tools": [WEATHER]}
    called = client.messages.create(**fields, messages=QUESTION)
    with client.messages.stream(**fields, messages=QUESTION, tool_choice={"type": "any"}) as stream:
        forced = stream.get_final_message()
    [call] = [block for block in forced.content if block.type == "tool_use"]
    result = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "sunny"}]}
    said = [*QUESTION, forced.to_param(), {"role": "user", "content": [result]}]
    told = client.messages.create(**fields, messages=said)
    return {"called": called.to_dict(), "forced": forced.to_dict(), "told": told.to_dict()}


def runner(client: Anthropic) -> Any:
    cities = []

    @beta_tool
    def get_weather(city: str) -> str:
        """The weather in a city.

        Args:
            city: its name
        """
        cities.append(city)
        return "sunny"

    run = client.beta.messages.tool_runner(
        model=MODEL, max_tokens=300, tools=[get_weather], messages=QUESTION, max_iterations=3
    )
    told = run.until_done().to_dict()
    return {"cities": cities, "told": told}


def parsed(client: Anthropic) -> Any:
    asked = asking("Make up a person.")
    whole = client.messages.parse(**asked, output_format=Person)
    with client.messages.stream(**asked, output_format=Person) as stream:
        final = stream.get_final_message()
    return [isinstance(answer.parsed_output, Person) for answer in (whole, final)]


def counted(client: Anthropic) -> Any:
    one, two = asking("count to 3"), asking("count to 3", tools=[WEATHER], system="Be brief.")
    del one["max_tokens"], two["max_tokens"]
    return [client.messages.count_tokens(**each).to_dict() for each in (one, two)]


def refused(client: Anthropic) -> Any:
    search = {"type": "web_search_20250305", "name": "web_search"}
    prefill = {"messages": [*QUESTION, {"role": "assistant", "content": "It is"}]}
    return {
        "tool": failure(lambda: client.messages.create(**asking("x", tools=[search]))),
        "prefill": failure(lambda: client.messages.create(**{**asking("x"), **prefill})),
        "count": failure(lambda: client.messages.count_tokens(model=MODEL, messages=[])),
    }


def guarded(_: Anthropic) -> Any:
    """The gateway with keys, whose container does what the prompt says."""
    url, key = os.environ["GUARDED_URL"], os.environ["GUARDED_KEY"]

    def ask(said: str, how: dict[str, Any], **fields: Any) -> Any:
        with Anthropic(base_url=url, max_retries=0, **how) as client:
            return client.messages.create(**{**asking(said), "model": "obedient-7b", **fields})

    def stream(said: str) -> list[str]:
        texts = []
        asked = {**asking(said), "model": "obedient-7b"}
        with (
            Anthropic(base_url=url, api_key=key, max_retries=0) as client,
            client.messages.stream(**asked) as stream,
        ):
            try:
                for text in stream.text_stream:
                    texts.append(text)
            except anthropic.APIStatusError as error:
                return [*texts, str(error.type)]
        return texts

    return {
        "key": ask("say: one two", {"api_key": key}).content[0].text,
        "token": ask("say: one two", {"auth_token": key}).content[0].text,
        "wrong": failure(lambda: ask("say: x", {"api_key": "wrong"})),
        "unknown": failure(lambda: ask("say: x", {"api_key": key}, model="nobody")),
        "large": failure(lambda: ask("say: " + "x" * 5000, {"api_key": key})),
        "busy": failure(lambda: ask("refuse 429 busy: full", {"api_key": key})),
        "broken": stream("break: one two"),
    }


def failure(call: Callable[[], object]) -> Any:
    try:
        return call()
    except anthropic.APIStatusError as error:
        request = error.request_id == error.body["request_id"] if isinstance(error.body, dict) else False
        return [type(error).__name__, error.status_code, error.type, request, error.api_message]


SCENES = (
    whole, cut_short, stopped, streamed, side_by_side, tools, runner, parsed, counted, refused, guarded
)  # fmt: skip

if __name__ == "__main__":
    with Anthropic(base_url=os.environ["DEMO_URL"], api_key="unused", max_retries=0) as client:
        print(json.dumps({scene.__name__: scene(client) for scene in SCENES}))
