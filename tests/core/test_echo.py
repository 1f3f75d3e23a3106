"""Echo: one exact leading copy of the prompt goes, however it is cut."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.echo import Echo
from gateway.core.events import Batch, Finish, Text
from tests.core.test_stops import pieces

texts = st.text("ab 你", max_size=12)


def reference(text: str, candidates: list[str]) -> str:
    fits = [c for c in candidates if c and text.startswith(c)]
    return text[len(max(fits, key=len)) :] if fits else text


def run(parts: list[str], candidates: list[str]) -> str:
    echo = Echo(candidates)
    out: list[Batch] = [echo.feed([Text(part)]) for part in parts] + [echo.feed([Finish()])]
    events = [event for batch in out for event in batch]
    assert events[-1] == Finish()
    return "".join(event.text for event in events[:-1] if isinstance(event, Text))


@given(texts, st.lists(texts, max_size=3), st.lists(st.integers(0, 30), max_size=6))
def test_any_cut_gives_the_same_as_the_whole(answer: str, candidates: list[str], cuts: list[int]) -> None:
    assert run(pieces(answer, cuts), candidates) == reference(answer, candidates)


@given(st.text("ab 你", min_size=1, max_size=12), texts, st.lists(st.integers(0, 30), max_size=6))
def test_an_echoed_prompt_goes_and_its_answer_stays(prompt: str, answer: str, cuts: list[int]) -> None:
    assert run(pieces(prompt + answer, cuts), [prompt]) == answer


def test_only_one_copy_goes() -> None:
    assert run(["hi hi hi"], ["hi "]) == "hi hi"


def test_an_answer_that_only_begins_like_the_prompt_is_whole() -> None:
    assert run(list("hello wo"), ["hello world"]) == "hello wo"


def test_the_form_without_special_tokens_is_recognised() -> None:
    assert run(list("hi there"), ["<|user|>hi", "hi"]) == " there"


def test_text_after_the_decision_passes_untouched() -> None:
    echo = Echo(["ab"])
    assert echo.feed([Text("ab")]) == []
    event = Text("ab")
    assert echo.feed([event])[0] is event


def test_a_long_copy_in_small_pieces_takes_linear_time() -> None:
    prompt = "x" * 200_000
    assert run([*prompt, "!"], [prompt]) == "!"
