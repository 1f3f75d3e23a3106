"""What a model is told about the JSON that is wanted."""

from typing import Any

import pytest

from gateway.core.structured import instructed, parse_format, repair
from gateway.core.structured.words import MAX_REPEATED, instruction
from tests.core.structured.test_form import form

USER = {"role": "user", "content": "hi"}
ASKED = form({"type": "object", "properties": {"ä": {}}}, description="a thing")


def test_the_instruction_holds_the_schema_compactly() -> None:
    assert instruction(ASKED).endswith('\nIt is: a thing\n{"type":"object","properties":{"ä":{}}}')
    plain = parse_format({"type": "json_object"})
    assert plain is not None
    assert instruction(plain).startswith("Answer with one JSON object.")


@pytest.mark.parametrize("role", ["system", "developer"])
def test_it_ends_the_first_system_message(role: str) -> None:
    given: list[dict[str, Any]] = [
        {"role": role, "content": "Be kind."},
        USER,
        {"role": role, "content": "Now."},
    ]
    told = instructed(given, ASKED)
    assert told[0] == {"role": role, "content": f"Be kind.\n\n{instruction(ASKED)}"}
    assert told[1:] == given[1:]
    assert given[0]["content"] == "Be kind."


def test_without_a_system_message_one_is_made() -> None:
    assert instructed([USER], ASKED) == [{"role": "system", "content": instruction(ASKED)}, USER]


def test_parts_and_empty_content_are_kept_apart() -> None:
    parts = [{"type": "text", "text": "Be kind."}]
    [told] = instructed([{"role": "system", "content": parts}], ASKED)
    assert told["content"] == [*parts, {"type": "text", "text": f"\n\n{instruction(ASKED)}"}]
    assert instructed([{"role": "system", "content": None}], ASKED)[0]["content"] == instruction(ASKED)


def test_it_can_go_to_the_last_message_of_the_user() -> None:
    given = [USER, {"role": "assistant", "content": "yes?"}, {"role": "user", "content": "go"}]
    told = instructed(given, ASKED, where="user")
    assert told == [*given[:2], {"role": "user", "content": f"go\n\n{instruction(ASKED)}"}]
    assert instructed(given[1:2], ASKED, where="user")[-1] == {"role": "user", "content": instruction(ASKED)}


def test_a_repair_shows_the_answer_and_what_is_wrong() -> None:
    told = repair([USER], "{", "at /a: 1 is not a word")
    assert told[:2] == [USER, {"role": "assistant", "content": "{"}]
    assert "at /a: 1 is not a word" in told[2]["content"]
    assert len(repair([USER], "x" * 10 * MAX_REPEATED, "no")[1]["content"]) == MAX_REPEATED
