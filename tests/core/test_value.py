"""Values of the hot path are values: compared, hashed and taken apart by their fields, changed by no one."""

from dataclasses import replace

import pytest

from gateway.core.events import Reasoning, Text, ToolArgs


def test_values_are_equal_by_their_fields_and_only_to_their_own_kind() -> None:
    assert Text("a") == Text("a") != Text("b")
    assert Text("a") != Reasoning("a")
    assert len({Text("a"), Text("a"), Reasoning("a")}) == 2


def test_a_change_is_a_new_value() -> None:
    before = ToolArgs(0, "a")
    assert replace(before, text="b") == ToolArgs(0, "b")
    assert before == ToolArgs(0, "a")


def test_a_value_has_its_fields_and_no_others() -> None:
    with pytest.raises(AttributeError):
        Text("a").other = 1  # type: ignore[attr-defined]
    match Text("a"):
        case Text(text, None):
            assert text == "a"
        case _:
            raise AssertionError
