"""Thinking: whatever the cut, the same split; only the tags and the white space behind them are lost."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.events import Event, Extra, Finish, Reasoning, Text, ToolStart, Usage, joined
from gateway.core.events import split as parted
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


def test_logprobs_stay_with_their_tokens_behind_one_that_belongs_to_both() -> None:
    words = ["<think", ">", "hm", "</think", ">\n\n", "Hi", " there", " you"]
    for group in (1, 2, 3, len(words)):
        filter, out = Thinking(), []
        for at in range(0, len(words), group):
            some = words[at : at + group]
            out += filter.feed([Text("".join(some), tuple(map(entry, some)))])
        said = joined([event for event in out if isinstance(event, Text)])
        assert said.text == "Hi there you"
        assert [each["token"] for each in said.logprobs or ()] == ["Hi", " there", " you"]


@given(
    st.lists(st.text("ab ", max_size=4), max_size=8),
    st.lists(st.integers(0, 30), max_size=5),
)
def test_a_token_is_covered_by_the_part_that_holds_it_whole(words: list[str], places: list[int]) -> None:
    """However often a text is parted and joined, a token goes only with a cut through it."""
    rest, text = Text("".join(words), tuple(map(entry, words))), "".join(words)
    ends = sorted({place % (len(text) + 1) for place in places})
    parts, before = [], 0
    for end in ends:
        part, rest = parted(rest, end - before)
        parts.append(part)
        before = end
    whole = joined([*parts, rest])
    starts = [sum(map(len, words[:index])) for index in range(len(words))]
    cut = [any(s < end < s + len(word) for end in ends) for s, word in zip(starts, words, strict=True)]
    kept = [word for word, through in zip(words, cut, strict=True) if not through]
    assert whole.text == text
    assert [each["token"] for each in whole.logprobs or ()] == kept
    again = [s for s, through in zip(starts, cut, strict=True) if not through]
    assert whole.starts in (None, tuple(again))
