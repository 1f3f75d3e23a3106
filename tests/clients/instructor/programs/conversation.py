"""Instructor in the modes that OpenAI's API has: prints what it got as one JSON object."""

import asyncio
import json

import instructor
from instructor import Mode
from instructor.core import InstructorRetryException
from openai import OpenAI
from pydantic import BaseModel, field_validator

MODEL = "openai/gpt-4o-mini"
WEATHER = [{"role": "user", "content": "What is the weather in Paris for 3 days?"}]
QUOTED = [{"role": "user", "content": "The 'city' and its 'sky'"}]


class Weather(BaseModel):
    city: str
    days: int


class Sky(BaseModel):
    city: str
    sky: str


seen: list[str] = []


class Shy(BaseModel):
    """Refuses the first answer, as a model of a user's might."""

    city: str

    @field_validator("city")
    @classmethod
    def not_at_once(cls, value: str) -> str:
        seen.append(value)
        if len(seen) == 1:
            raise ValueError("not this one")
        return value


def client(mode: Mode) -> instructor.Instructor:
    return instructor.from_provider(MODEL, mode=mode)


async def later() -> Weather:
    return await instructor.from_provider(MODEL, async_client=True).create(Weather, WEATHER)


whole, completion = client(Mode.TOOLS).create_with_completion(WEATHER, Weather)
structured = [whole, asyncio.run(later())]
structured += [client(mode).create(Weather, WEATHER) for mode in (Mode.JSON_SCHEMA, Mode.RESPONSES_TOOLS)]
partials = list(client(Mode.TOOLS).create_partial(Weather, WEATHER))
schemas = list(client(Mode.JSON_SCHEMA).create_partial(Weather, WEATHER))
as_json = client(Mode.JSON).create(Sky, QUOTED)
json_partials = list(client(Mode.JSON).create_partial(Sky, QUOTED))
mended = client(Mode.TOOLS).create(Shy, WEATHER, max_retries=2)
try:
    client(Mode.TOOLS).create(Weather, WEATHER, temperature=9, max_retries=0)
except InstructorRetryException as error:
    refused = str(error)
with OpenAI() as plain:
    asked = [{"role": "user", "content": "count to 3"}]
    answer = instructor.from_openai(plain).create(None, asked, model="gpt-4o-mini")
print(
    json.dumps(
        {
            "chat": answer.choices[0].message.content,
            "structured": [each.model_dump() for each in [*structured, partials[-1], schemas[-1]]],
            "partials": [len(partials), len(schemas), len(json_partials)],
            "json": [as_json.model_dump(), json_partials[-1].model_dump()],
            "tokens": completion.usage.completion_tokens,
            "asked_again": [len(seen), mended.city],
            "refused": refused,
        }
    )
)
