"""The measure of the filters itself works, and what is not watched for has no filter to pay for."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.core.call import Traits
from gateway.core.events import Finish, Text
from gateway.core.plan import Origin, plan
from gateway.core.spec import ModelSpec
from gateway.core.stops import Stops
from gateway.core.tools import DIALECTS
from gateway.core.tools.watcher import Watcher
from gateway.core.watch import filters
from gateway.core.wire import parse_chat
from gateway.templates import load
from tests.bench.filters import CODE, PROSE, TARGET, TOOLS, Subject, measure, subjects, table, tokens

SUBJECTS = list(subjects())


def answer(subject: Subject, text: str) -> list[Any]:
    batch: Any = [*(Text(token) for token in tokens(text)), Finish()]
    for each in subject.make():
        batch = each.feed(batch)
    return list(batch)


@pytest.mark.parametrize("subject", SUBJECTS, ids=[each.name for each in SUBJECTS])
def test_a_subject_finds_nothing_in_prose_and_something_in_its_own_text(subject: Subject) -> None:
    for text in (PROSE, CODE):
        assert "".join(tokens(text)) == text
        if subject.name != "JSON":  # an object stands in the code
            assert "".join(each.text for each in answer(subject, text)[:-1]) == text
    kinds = {type(event).__name__ for event in answer(subject, subject.finds)}
    if subject.name.strip("`") in DIALECTS:
        assert {"ToolStart", "ToolArgs"} <= kinds
    elif "reasoning" in subject.name:
        assert "Reasoning" in kinds


def test_every_dialect_is_measured() -> None:
    assert {f"`{name}`" for name in DIALECTS} <= {each.name for each in SUBJECTS}


@pytest.mark.parametrize(
    ("template", "fields", "wanted"),
    [
        ("plain", {}, []),
        ("chatml", {}, [Stops]),
        ("chatml", {"stop": ["x"]}, [Stops]),
        ("qwen3", {"tools": TOOLS, "tool_choice": "none"}, [Stops]),
        ("qwen3", {"tools": TOOLS}, [Stops, Watcher]),
    ],
)
def test_only_what_a_request_asks_for_is_watched_for(
    template: str, fields: dict[str, Any], wanted: list[type]
) -> None:
    asked = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}
    spec, origin = ModelSpec("m", load(template)), Origin("req_1", datetime.now(UTC))
    call = plan(parse_chat(json.dumps(asked).encode()), spec, Traits("prompt"), origin)
    assert [type(each) for each in filters(call)] == wanted


@pytest.mark.slow
def test_no_event_costs_more_than_the_target() -> None:
    lines = measure(rounds=3)
    assert not [line for line in lines if not line.ok], table(lines)
    assert len(table(lines).splitlines()) == len(SUBJECTS) + 2
    assert TARGET == 10
