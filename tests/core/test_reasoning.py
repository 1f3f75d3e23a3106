"""Thinking: whatever the cut, the same split; only the tags and the white space behind them are lost."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.events import Event, Extra, Finish, Reasoning, Text, ToolStart, Usage
from gateway.core.reasoning import MAX_SPACE, Thinking
from tests.core.tools.answers import merged, pieces, read

SCRAPS = ["<think>", "</think>", "<", "think", ">", "/", " ", "\n", "a", "well", "欢迎"]
texts = st.lists(st.sampled_from(SCRAPS), max_size=12).map("".join)
CUTS = st.lists(st.integers(0, 100), max_size=10)


def reference(text: str, starts_open: bool) -> tuple[str, str]:
    """(thought, said) of a whole answer."""
    body = text.lstrip()
    if len(text) - len(body) <= MAX_SPACE and body.startswith("<think>"):
        inside = body[len("<think>") :]
    elif starts_open:
        inside = text
    else:
        return "", text
    thought, _, said = inside.lstrip().partition("</think>")
    return thought, said.lstrip()


def split(events: Sequence[Event]) -> tuple[str, str]:
    thought = "".join(event.text for event in events if isinstance(event, Reasoning))
    return thought, "".join(event.text for event in events if isinstance(event, Text))


@given(texts, st.booleans(), CUTS)
def test_any_cut_gives_what_reading_the_whole_gives(text: str, starts_open: bool, cuts: list[int]) -> None:
    for parts in ([text], list(text), pieces(text, cuts)):
        events = read(Thinking(starts_open=starts_open), parts)
        assert split(events) == reference(text, starts_open)
        assert events[-1] == Finish("stop")
        kinds = [type(event) for event in events[:-1]]
        assert kinds in ([], [Reasoning], [Text], [Reasoning, Text])


@given(texts, st.booleans(), CUTS)
def test_no_more_is_held_back_than_could_be_a_tag(text: str, starts_open: bool, cuts: list[int]) -> None:
    filter, out, fed = Thinking(starts_open=starts_open), [], ""
    for part in pieces(text, cuts):
        fed += part
        out += filter.feed([Text(part)])
        thought, said = split(out)
        whole_thought, whole_said = reference(fed, starts_open)
        held = len(whole_thought) + len(whole_said) - len(thought) - len(said)
        assert 0 <= held <= max(len(fed) - len(fed.lstrip()), 0) + len("</think>") - 1


@pytest.mark.parametrize(
    ("text", "thought", "said"),
    [
        ("<think>\nHm.\n</think>\n\nYes.", "Hm.\n", "Yes."),
        ("\n <think>Hm.</think>Yes.", "Hm.", "Yes."),
        ("<think>\n\n</think>\n\nYes.", "", "Yes."),
        ("<think>still", "still", ""),
        ("<think>a</thin", "a</thin", ""),
        ("No <think>tag</think>.", "", "No <think>tag</think>."),
        ("<think>a</think>b <think>c</think>", "a", "b <think>c</think>"),
        ("<thi", "", "<thi"),
        (" \n", "", " \n"),
        ("", "", ""),
    ],
)
def test_what_is_thought_and_what_is_said(text: str, thought: str, said: str) -> None:
    for parts in ([text], list(text)):
        assert split(read(Thinking(), parts)) == (thought, said)


def test_an_answer_may_begin_inside() -> None:
    for text in ("Hm.</think>\n\nYes.", "<think>\nHm.</think>Yes."):
        assert split(read(Thinking(starts_open=True), list(text))) == ("Hm.", "Yes.")
    assert split(read(Thinking(starts_open=True), ["all of it <"])) == ("all of it <", "")


def test_other_tags_are_told_by_the_configuration() -> None:
    filter = Thinking("◁think▷", "◁/think▷")
    assert split(read(filter, list("◁think▷<think>◁/think▷Yes."))) == ("<think>", "Yes.")


def test_white_space_without_end_is_no_opening() -> None:
    text = " " * (MAX_SPACE + 1) + "<think>a</think>"
    assert split(read(Thinking(), list(text))) == ("", text)
    assert split(read(Thinking(), [text])) == ("", text)


def test_an_answer_without_thought_passes_as_it_is() -> None:
    filter = Thinking()
    event = Text("Yes")
    assert filter.feed([event])[0] is event
    batch = [Text(" indeed"), Finish()]
    assert filter.feed(batch) is batch


def test_other_events_pass_and_the_end_releases_what_was_held() -> None:
    filter = Thinking()
    assert filter.feed([Text("<think>a</th"), Extra({"a": 1}), ToolStart(0, "call_1", "f")]) == [
        Reasoning("a"),
        Extra({"a": 1}),
        ToolStart(0, "call_1", "f"),
    ]
    assert filter.feed([Finish("length", Usage(1, 2))]) == [Reasoning("</th"), Finish("length", Usage(1, 2))]


def entry(token: str) -> dict[str, Any]:
    return {"token": token, "logprob": -0.5, "bytes": None, "top_logprobs": []}


def test_logprobs_stay_with_the_tokens_that_were_said() -> None:
    tokens = ["<th", "ink>", "Hm", ".</", "think>", "\n\n", "Yes", "."]
    filter, out = Thinking(), []
    for token in tokens:
        out += filter.feed([Text(token, (entry(token),))])
    assert merged(out) == [Reasoning("Hm."), Text("Yes.")]
    assert [e["token"] for event in out if isinstance(event, Text) for e in event.logprobs or ()] == [
        "Yes",
        ".",
    ]
    filter = Thinking()
    out = [*filter.feed([Text("<t", (entry("<t"),))]), *filter.feed([Text("o>", (entry("o>"),))])]
    assert [e["token"] for event in out if isinstance(event, Text) for e in event.logprobs or ()] == [
        "<t",
        "o>",
    ]
