"""Frameworks in front of the demo, each in an environment of its own: whole, streamed, tools, schemas.

Each has one plain program, ``FAMILY/programs/conversation.py``, that does what its users do and prints what
it got as JSON. What all of them must get is asserted once; what only one can do, below that.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
FAMILIES = ("pydantic_ai", "openai_agents", "llamaindex", "litellm", "instructor")
CALLING = tuple(family for family in FAMILIES if family != "instructor")  # whose tools are its schemas
VECTORS = ("llamaindex", "litellm")

WEATHER = {"city": "Paris", "days": 3}
CALL = ["Paris", 3]
TOLD = "I was told: Paris: sun for 3 days"
REFUSED = "temperature: input should be less than or equal to 2"

Said = dict[str, Any]

pytestmark = pytest.mark.clients


def environ(demo: str) -> dict[str, str]:
    """Both names that clients know the address by; and what keeps one of them from asking the network."""
    address = dict.fromkeys(("OPENAI_BASE_URL", "OPENAI_API_BASE"), f"{demo}/v1")
    return {**os.environ, **address, "OPENAI_API_KEY": "unused", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}


def printed(command: list[str | Path], folder: Path, env: dict[str, str]) -> str:
    done = subprocess.run(
        command, cwd=folder, env=env, check=False, capture_output=True, encoding="utf-8", timeout=180
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def said(
    client_python: Callable[[str], Path], demo: str, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Said]:
    """``said("litellm")``: what its program printed; it runs once."""

    @cache
    def run(family: str) -> Said:
        program = HERE / family / "programs" / "conversation.py"
        text = printed([client_python(family), program], tmp_path_factory.mktemp(family), environ(demo))
        found: Said = json.loads(text)
        return found

    return run


@pytest.mark.parametrize("family", FAMILIES)
def test_a_chat(family: str, said: Callable[[str], Said]) -> None:
    assert said(family)["chat"] == "1 2 3"


@pytest.mark.parametrize("family", CALLING)
def test_a_stream_comes_in_pieces(family: str, said: Callable[[str], Said]) -> None:
    pieces = said(family)["pieces"]
    assert "".join(pieces) == "1 2 3"
    assert len(pieces) == 3


@pytest.mark.parametrize("family", CALLING)
def test_a_conversation_goes_on(family: str, said: Callable[[str], Said]) -> None:
    assert said(family)["further"] == "1 2"


@pytest.mark.parametrize("family", CALLING)
def test_tools_are_called_and_their_results_told_whole_and_streamed(
    family: str, said: Callable[[str], Said]
) -> None:
    assert said(family)["calls"] == [CALL, CALL]
    assert said(family)["told"] == [TOLD, TOLD]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_way_to_ask_for_a_schema_is_answered_with_it(
    family: str, said: Callable[[str], Said]
) -> None:
    structured = said(family)["structured"]
    assert len(structured) >= 2
    assert all(each == WEATHER for each in structured), structured


@pytest.mark.parametrize("family", FAMILIES)
def test_a_refusal_says_why(family: str, said: Callable[[str], Said]) -> None:
    assert REFUSED in said(family)["refused"]


@pytest.mark.parametrize("family", ["pydantic_ai", "openai_agents", "litellm"])
def test_a_stream_is_counted_as_the_whole_is(family: str, said: Callable[[str], Said]) -> None:
    assert said(family)["tokens"] == [3, 3]


@pytest.mark.parametrize("family", VECTORS)
def test_embeddings(family: str, said: Callable[[str], Said]) -> None:
    assert said(family)["vectors"] == [256, 256, 256]


def test_pydantic_ai_asks_chat_completions_too(said: Callable[[str], Said]) -> None:
    assert said("pydantic_ai")["chat_structured"] == WEATHER


def test_an_agent_hands_over_to_another(said: Callable[[str], Said]) -> None:
    assert said("openai_agents")["handed"] == "plain"


def test_llamaindex_completes_bare_texts_and_finds_a_query_where_its_text_is(
    said: Callable[[str], Said],
) -> None:
    assert said("llamaindex")["completed"] == ["1 2 3", "1 2 3"]
    assert said("llamaindex")["same"] is True


def test_litellm_completes_bare_texts_and_asks_responses(said: Callable[[str], Said]) -> None:
    assert (said("litellm")["completed"], said("litellm")["responses"]) == ("1 2 3", "1 2 3")


def test_instructor_fills_models_as_they_come_and_asks_again_for_what_it_refused(
    said: Callable[[str], Said],
) -> None:
    found = said("instructor")
    assert all(count > 5 for count in found["partials"]), found["partials"]
    assert [set(each) for each in found["json"]] == [{"city", "sky"}] * 2
    assert found["tokens"] > 0
    assert found["asked_again"] == [2, "Paris"]


def test_the_llm_command(client_python: Callable[[str], Path], demo: str, tmp_path: Path) -> None:
    python = client_python("llm")
    own = {"LLM_USER_PATH": str(tmp_path), "PATH": f"{python.parent}:{os.environ['PATH']}"}
    script = HERE / "llm" / "programs" / "conversation.sh"
    lines = printed(["bash", script], tmp_path, environ(demo) | own).splitlines()
    found = dict(line.split(": ", 1) for line in lines)
    assert {found.pop(name) for name in ("chat", "streamed", "endpoint", "responses")} == {"1 2 3"}
    assert (found.pop("further"), found.pop("counted")) == ("1 2", "3")
    assert (found.pop("told"), found.pop("told_again")) == (TOLD, TOLD)
    assert found.pop("calls").count("get_weather({'city': 'Paris', 'days': 3})") == 2
    assert json.loads(found.pop("structured")) == WEATHER
    assert found.pop("refused") == "Error: Error code: 400 - " + (
        "max_tokens: input should be greater than or equal to 1."
    )
    assert not found
