"""Stops: whatever the cut, the same as reading one character at a time."""

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.events import Extra, Finish, Reasoning, Text, ToolStart, Usage
from gateway.core.stops import Stops

# A small alphabet makes overlaps, repeats and near misses likely; 欢迎 is a stop people really use.
ALPHABET = "ab\n欢迎"
texts = st.text(ALPHABET, max_size=40)
stop_lists = st.lists(st.text(ALPHABET, min_size=1, max_size=5), max_size=4)


def reference(text: str, stops: Sequence[str]) -> tuple[str, str | None]:
    """Read character by character; end where a stop is complete, the longest of those complete there."""
    for end in range(1, len(text) + 1):
        complete = [stop for stop in stops if stop and text[:end].endswith(stop)]
        if complete:
            longest = max(complete, key=len)
            return text[: end - len(longest)], longest
    return text, None


def pieces(text: str, cuts: Sequence[int]) -> list[str]:
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[a:b] for a, b in pairwise(places)]


def run(parts: Sequence[str], stops: Sequence[str], finish: str = "length") -> tuple[str, Finish]:
    """Feed each part as a batch of its own; the visible text and the end."""
    stopper, said = Stops(tuple(stops)), []
    for batch in [*([Text(part)] for part in parts), [Finish(finish)]]:
        for event in stopper.feed(batch):
            if isinstance(event, Finish):
                return "".join(said), event
            assert isinstance(event, Text)
            said.append(event.text)
    raise AssertionError("no Finish came out")


@given(texts, stop_lists, st.lists(st.integers(0, 40), max_size=8))
def test_any_cut_gives_what_reading_one_character_at_a_time_gives(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    said, finish = run(pieces(text, cuts), stops)
    assert (said, finish.stopped_by) == reference(text, stops)
    assert finish.reason == ("stop" if finish.stopped_by else "length")


@given(texts, stop_lists, st.lists(st.integers(0, 40), max_size=8))
def test_nothing_is_shown_that_could_still_become_part_of_a_stop(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    stopper, said, read = Stops(tuple(stops)), "", ""
    for part in pieces(text, cuts):
        read += part
        out = stopper.feed([Text(part)])
        said += "".join(event.text for event in out if isinstance(event, Text))
        if any(isinstance(event, Finish) for event in out):
            return
        held = read[len(said) :]
        assert read == said + held
        longest = max((n for stop in stops for n in range(len(stop)) if read.endswith(stop[:n])), default=0)
        assert len(held) == longest


@given(texts, stop_lists, st.lists(st.integers(0, 40), max_size=8))
def test_one_batch_or_many_make_no_difference(text: str, stops: list[str], cuts: list[int]) -> None:
    parts = pieces(text, cuts)
    out = Stops(tuple(stops)).feed([*(Text(part) for part in parts), Finish("length")])
    said = "".join(event.text for event in out if isinstance(event, Text))
    finish = out[-1]
    assert isinstance(finish, Finish)
    assert (said, finish.stopped_by) == reference(text, stops)


def test_the_longest_of_stops_that_complete_together_wins() -> None:
    assert run(["xabc"], ["c", "abc", "bc"]) == ("x", Finish("stop", stopped_by="abc"))


def test_the_stop_that_completes_first_wins_even_if_another_began_earlier() -> None:
    assert run(["abcd"], ["abcd", "bc"]) == ("a", Finish("stop", stopped_by="bc"))


def test_patterns_are_literal() -> None:
    assert run(["a.b|c(d"], ["."])[0] == "a"
    assert run(["a.b|c(d"], ["|"])[0] == "a.b"
    assert run(["a.b|c(d"], ["("])[0] == "a.b|c"
    assert run(["abc"], [".*"])[0] == "abc"


def test_empty_stops_stop_nothing() -> None:
    assert run(["abc"], ["", "x"]) == ("abc", Finish("length"))


def test_the_upstreams_usage_is_kept_when_it_came_with_the_text() -> None:
    usage = Usage(3, 9)
    out = Stops(("b",)).feed([Text("abc"), Finish("length", usage=usage)])
    assert out == [Text("a"), Finish("stop", usage=usage, stopped_by="b")]


def test_held_text_goes_out_before_an_event_of_another_kind() -> None:
    stopper = Stops(("abc",))
    assert stopper.feed([Text("xab"), ToolStart(0, "call_1", "f")]) == [
        Text("x"),
        Text("ab"),
        ToolStart(0, "call_1", "f"),
    ]
    assert stopper.feed([Text("c"), Reasoning("abc"), Extra({"a": 1}), Finish()]) == [
        Text("c"),
        Reasoning("abc"),
        Extra({"a": 1}),
        Finish(),
    ]


def entry(token: str) -> dict[str, object]:
    return {"token": token, "logprob": -0.5, "bytes": None, "top_logprobs": []}


@given(st.lists(st.text(ALPHABET, min_size=1, max_size=3), max_size=8), stop_lists)
def test_logprobs_stay_with_their_tokens(tokens: list[str], stops: list[str]) -> None:
    events = [Text(token, (entry(token),)) for token in tokens]
    stopper, out = Stops(tuple(stops)), []
    for event in [*events, Finish("length")]:
        out += stopper.feed([event])
        if out and isinstance(out[-1], Finish):
            break
    said = "".join(event.text for event in out if isinstance(event, Text))
    kept = [e["token"] for event in out if isinstance(event, Text) for e in event.logprobs or ()]
    assert kept == tokens[: len(kept)]
    assert said.startswith("".join(kept))  # never more than what was said
    following = tokens[len(kept)] if len(kept) < len(tokens) else ""
    assert not following or len("".join(kept) + following) > len(said)  # and every token that was


def test_an_untouched_event_is_passed_on_as_it_is() -> None:
    event = Text("nothing here")
    assert Stops(("欢迎",)).feed([event])[0] is event


def test_tokens_shorter_than_their_text_do_not_hold_it_back() -> None:
    stopper = Stops(("STOP",))
    for _ in range(3):
        assert stopper.feed([Text("S says ", (entry(""),))]) != []


def test_an_answer_that_called_a_tool_before_a_stop_ends_as_one_that_did() -> None:
    usage = Usage(1, 2)
    for rest, counted in ([Text(" more"), Finish("stop", usage)], usage), ([], None):
        stopper = Stops(("STOP",))
        begun = stopper.feed([Text("Well. "), ToolStart(0, "call_1", "f")])
        assert [type(event) for event in begun] == [Text, ToolStart]
        assert stopper.feed([Text("Done STOP"), *rest]) == [
            Text("Done "),
            Finish("tool_calls", counted, stopped_by="STOP"),
        ]
