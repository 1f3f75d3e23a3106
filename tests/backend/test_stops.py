"""The stop cutter against a reference that looks at one character at a time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modal_backend.stops import StopCutter


def cut(texts: list[str], stops: list[str]) -> tuple[list[str], bool]:
    """What goes out after each piece and at the end, and whether a stop was found."""
    cutter = StopCutter(stops)
    out = [cutter.feed(text) for text in texts]
    return [*out, cutter.end()], cutter.stopped


def reference(text: str, stops: list[str]) -> tuple[str, bool]:
    """The text before the stop that completes first, the longest of a tie; and whether there was one."""
    for end in range(1, len(text) + 1):
        if ended := [stop for stop in stops if stop and text[:end].endswith(stop)]:
            return text[: end - max(map(len, ended))], True
    return text, False


def safe(text: str, stops: list[str]) -> str:
    """The most of an unfinished text that can no longer become part of a stop."""
    held = max(
        (length for stop in stops for length in range(len(stop)) if text.endswith(stop[:length])), default=0
    )
    return text[: len(text) - held]


few = st.text(alphabet="ab好", max_size=24)
some_stops = st.lists(st.text(alphabet="ab好", max_size=5), max_size=5)


@given(texts=st.lists(few, max_size=12), stops=some_stops)
def test_the_text_ends_before_the_stop_that_completes_first(texts: list[str], stops: list[str]) -> None:
    out, stopped = cut(texts, stops)
    assert ("".join(out), stopped) == reference("".join(texts), stops)


@given(texts=st.lists(few, max_size=12), stops=some_stops)
def test_a_character_goes_out_once_it_can_be_part_of_no_stop(texts: list[str], stops: list[str]) -> None:
    cutter, arrived, gone = StopCutter(stops), "", ""
    for text in texts:
        arrived += text
        gone += cutter.feed(text)
        if cutter.stopped:
            break
        assert gone == safe(arrived, stops)


@given(text=st.text(max_size=60), stops=st.lists(st.text(max_size=4), max_size=4), at=st.integers(0, 60))
def test_any_character_may_be_in_a_stop(text: str, stops: list[str], at: int) -> None:
    out, stopped = cut([text[:at], text[at:]], stops)
    assert ("".join(out), stopped) == reference(text, stops)


@pytest.mark.parametrize(
    ("text", "stops", "wanted"),
    [
        ("one two three", ["two"], "one "),
        ("aab", ["b", "ab"], "a"),  # a tie goes to the longest
        ("xabcabd", ["abd"], "xabc"),
        ("aabaac", ["aabaad", "aac"], "aab"),  # a broken long match hides a short one within it
        ("a.b", ["."], "a"),  # literal, never a pattern
        ("text", ["", "zz"], "text"),
        ("欢迎", ["迎"], "欢"),
        ("a]b^c-d\\e", ["^", "]", "-", "\\"], "a"),
    ],
)
def test_cases(text: str, stops: list[str], wanted: str) -> None:
    for texts in ([text], list(text)):
        assert "".join(cut(texts, stops)[0]) == wanted


def test_work_is_linear_in_text_that_nearly_matches() -> None:
    # A cutter that compares again at each character would take 4e9 steps here.
    stop = "a" * 1000 + "b"
    cutter = StopCutter([stop] * 64)
    gone = "".join(cutter.feed("a") for _ in range(60_000))
    assert len(gone) == 59_000
    assert cutter.feed("b") == ""
    assert cutter.stopped
