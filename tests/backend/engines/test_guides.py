"""Guided answers fit what guides them, whatever the model would rather say."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import httpx
import pytest

from modal_backend.contract import contract_app
from modal_backend.engines.transformers_engine import TransformersEngine
from tests.backend.conftest import Host
from tests.backend.engines.asking import streamed, whole

pytestmark = pytest.mark.torch


@pytest.fixture(scope="session")
def url(host: Host, engine: TransformersEngine) -> str:
    return host.serve(contract_app(engine))


def schema(draw: random.Random, depth: int = 3) -> dict[str, Any]:
    """A schema of moderate size whose instances are bounded, so that an answer has room to end."""
    kinds = ["integer", "boolean", "null", "string", "enum", "const", "number"]
    if depth:
        kinds += ["object", "object", "array", "anyOf"]
    match draw.choice(kinds):
        case "integer":
            low = draw.randint(-500, 500)
            return {"type": "integer", "minimum": low, "maximum": low + draw.randint(0, 300)}
        case "number":
            return {"type": "number", "minimum": 0, "maximum": 1, "multipleOf": 0.25}
        case "string":
            return {"type": "string", "maxLength": draw.randint(0, 6)}
        case "enum":
            return {"enum": draw.sample(["a", "ß", 1, 2.5, None, True, "水"], draw.randint(1, 4))}
        case "const":
            return {"const": draw.choice(["x y", 7, False, {"k": [1]}])}
        case "object":
            names = draw.sample(["name", "größe", "名", "a b", "z"], draw.randint(0, 3))
            properties = {name: schema(draw, depth - 1) for name in names}
            required = [name for name in names if draw.random() < 0.7]
            return {
                "type": "object", "additionalProperties": False,
                "properties": properties, "required": required,
            }  # fmt: skip
        case "array":
            most = draw.randint(0, 3)
            least = draw.randint(0, most)
            return {"type": "array", "items": schema(draw, depth - 1), "minItems": least, "maxItems": most}
        case "anyOf":
            return {"anyOf": [schema(draw, depth - 1) for _ in range(2)]}
        case kind:
            return {"type": kind}


def fits(value: Any, wanted: dict[str, Any]) -> bool:
    """Is ``value`` an instance? Knows the keywords that ``schema`` draws."""
    if "enum" in wanted:
        return any(same(value, one) for one in wanted["enum"])
    if "const" in wanted:
        return same(value, wanted["const"])
    if "anyOf" in wanted:
        return any(fits(value, one) for one in wanted["anyOf"])
    match wanted["type"]:
        case "integer" | "number" as kind:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            whole_number = kind == "number" or (number and float(value).is_integer())
            step = wanted.get("multipleOf", 0)
            return bool(
                number and whole_number and wanted["minimum"] <= value <= wanted["maximum"]
                and (not step or (value / step).is_integer())
            )  # fmt: skip
        case "string":
            return isinstance(value, str) and len(value) <= wanted["maxLength"]
        case "boolean":
            return isinstance(value, bool)
        case "null":
            return value is None
        case "array":
            return (
                isinstance(value, list)
                and wanted["minItems"] <= len(value) <= wanted["maxItems"]
                and all(fits(one, wanted["items"]) for one in value)
            )
    return (
        isinstance(value, dict)
        and set(wanted["required"]) <= set(value) <= set(wanted["properties"])
        and all(fits(one, wanted["properties"][name]) for name, one in value.items())
    )


def same(value: Any, other: Any) -> bool:
    return json.dumps(value) == json.dumps(other)


async def check(client: httpx.AsyncClient, url: str, seeds: range) -> None:
    for seed in seeds:
        wanted = schema(random.Random(seed))
        answer = await whole(client, url, prompt="the", json_schema=wanted, seed=seed, max_tokens=480)
        assert answer["finish_reason"] == "stop", (wanted, answer)
        value = json.loads(answer["prompt"])
        assert fits(value, wanted), (wanted, value)


async def test_json_fits_its_schema(client: httpx.AsyncClient, url: str) -> None:
    await check(client, url, range(200))


def test_the_check_itself_refuses() -> None:
    closed = {"type": "object", "properties": {"a": {"type": "null"}}, "required": ["a"]}
    assert fits({"a": None}, closed)
    for wrong in ({}, {"a": 1}, {"a": None, "b": None}, []):
        assert not fits(wrong, closed)
    assert not fits(True, {"enum": [1]})
    assert not fits(0.3, {"type": "number", "minimum": 0, "maximum": 1, "multipleOf": 0.25})


@pytest.mark.parametrize("regex", ["[0-9]{3}-(ab)+c", "(你好|世界){2,5}!", "yes|no", "a{0,3}b"])
async def test_a_regex_is_matched(client: httpx.AsyncClient, url: str, regex: str) -> None:
    for seed in range(3):
        answer = await streamed(client, url, prompt="the", regex=regex, seed=seed, max_tokens=400)
        assert answer.last["finish_reason"] == "stop"
        assert re.fullmatch(regex, answer.text)


@pytest.mark.parametrize(
    "grammar",
    [
        'start: "(" start ")" | /[0-9]/',  # Lark
        'root ::= "(" root ")" | [0-9]',  # GBNF
    ],
)
async def test_a_grammar_is_followed(client: httpx.AsyncClient, url: str, grammar: str) -> None:
    for seed in range(4):
        answer = await whole(client, url, prompt="the", grammar=grammar, seed=seed, max_tokens=400)
        assert answer["finish_reason"] == "stop"
        depth = answer["prompt"].count("(")
        assert re.fullmatch(rf"\({{{depth}}}[0-9]\){{{depth}}}", answer["prompt"])


async def test_an_answer_that_is_cut_says_so(client: httpx.AsyncClient, url: str) -> None:
    answer = await whole(client, url, prompt="the", regex="[a-z]{300}", max_tokens=3)
    assert answer["finish_reason"] == "length"


async def test_a_guide_leaves_the_others_alone(client: httpx.AsyncClient, url: str) -> None:
    import asyncio

    plain: dict[str, Any] = {"prompt": "question", "max_tokens": 60, "temperature": 0}
    alone = await whole(client, url, **plain)
    guided = {"prompt": "question", "max_tokens": 100, "regex": "[xy]{20,30}", "seed": 1}
    together, fitted, _ = await asyncio.gather(
        whole(client, url, **plain), whole(client, url, **guided), whole(client, url, **guided)
    )
    assert together == alone
    assert re.fullmatch("[xy]{20,30}", fitted["prompt"])
