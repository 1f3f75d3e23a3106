"""docs/coming-from.md says what is true: its configs are taken, and what it calls absent is refused aloud."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import yaml

from gateway.core.parameters import PARAMETERS
from gateway.settings import settings_from
from gateway.templates import load, names
from tests.clients.process import ROOT

TEXT = (ROOT / "docs" / "coming-from.md").read_text(encoding="utf-8")
CONFIGS = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.+?)```", TEXT, re.DOTALL)]
ASKED = {"model": "chatglm2-6b", "messages": [{"role": "user", "content": "你好"}]}


@pytest.fixture
def http(demo: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=demo, timeout=30) as client:
        yield client


@pytest.mark.parametrize("data", CONFIGS, ids=lambda data: next(iter(data["models"])))
def test_every_config_is_taken(data: dict[str, Any]) -> None:
    settings = settings_from(data, environ={})
    for model in settings.models.values():
        load(model.template)


def test_the_defaults_it_names_are_the_defaults() -> None:
    settings = settings_from({"models": {"m": {"upstream": {"url": "http://localhost"}}}})
    [model] = settings.models.values()
    [upstream] = model.upstreams
    assert upstream.kind == "prompt"
    assert (upstream.first_event_timeout, upstream.idle_timeout) == (600, 120)
    assert model.balance == "least_pending"
    assert settings.server.cors_origins == ()


def absent(key: str) -> list[str]:
    """What a row of "What is not here yet" lists before its second column; found by a word of it."""
    section = TEXT.partition("## What is not here yet")[2].partition("\n## ")[0]
    [row] = [line for line in section.splitlines() if line.startswith("|") and key in line]
    return re.findall(r"`([^` ]+)`", row.split("|")[1])


@pytest.mark.parametrize("path", absent("/tokenize"))
def test_an_endpoint_it_calls_absent_is_a_404(http: httpx.Client, path: str) -> None:
    answer = http.post(path.replace("{model}", "chatglm2-6b").replace("...", "chat/completions"), json=ASKED)
    assert answer.status_code == 404
    assert answer.json()["error"]["message"]


def test_tools_and_schemas_are_answered_over_a_prompt(http: httpx.Client) -> None:
    assert {row.name for row in PARAMETERS if row.does == "reject"} == {"audio"}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    asked = {**ASKED, "tools": [tool], "tool_choice": "required"}
    [choice] = http.post("/v1/chat/completions", json=asked).json()["choices"]
    assert [call["function"]["name"] for call in choice["message"]["tool_calls"]] == ["f"]
    asked = {**ASKED, "response_format": {"type": "json_object"}}
    answer = http.post("/v1/chat/completions", json=asked)
    assert answer.headers["x-gateway-json"] == "guaranteed"
    assert isinstance(json.loads(answer.json()["choices"][0]["message"]["content"]), dict)


def test_every_template_but_raw_has_boundary_stops() -> None:
    assert [name for name in names() if not load(name).stops] == ["raw"]
