"""Extract: of any answer its first JSON value, whatever stands around it and however it was cut."""

import json
from collections.abc import Sequence
from itertools import pairwise
from time import process_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.events import Event, Extra, Finish, Reasoning, Text, ToolStart, Usage
from gateway.core.structured.extract import MAX_PROSE, MAX_REST, Extract
from gateway.core.structured.form import KINDS, kind_of
from gateway.core.structured.opening import MAX_GAP, MAX_KEY

ALL = frozenset(KINDS)
CONTAINERS = frozenset({"object", "array"})

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
values = st.recursive(
    scalars | st.sampled_from(['"', "\\", '\\"', "}", "```", "{", "]"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
spelled = st.builds(
    lambda value, indent, ascii_only: (value, json.dumps(value, indent=indent, ensure_ascii=ascii_only)),
    values,
    st.sampled_from([None, 0, 2]),
    st.booleans(),
)
prose = st.sampled_from(
    [
        "",
        "Sure! ",
        "Here is the {thing} you want:\n",
        "It's 5 o'clock, true? \n",
        '"quoted" `code` ',
        "{ {",
        "\n ",
    ]
)
fences = st.sampled_from([("", ""), ("```json\n", "\n```"), ("```\n", "\n```\n"), ("```JSON\r\n", "```")])
ends = st.sampled_from(["", "\n", "\n\nIs {this} what you meant? [1]", ' {"more": 1}', "}"])
cuts = st.lists(st.integers(0, 400), max_size=12)


def pieces(text: str, places: Sequence[int]) -> list[str]:
    ordered = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[a:b] for a, b in pairwise(ordered)]


def run(parts: Sequence[str], kinds: frozenset[str], finish: str = "stop") -> tuple[str, Finish]:
    """Feed each part as a batch of its own; what came out, and the end."""
    extract, said = Extract(kinds), []
    for batch in [*([Text(part)] for part in parts), [Finish(finish)]]:
        for event in extract.feed(batch):
            if isinstance(event, Finish):
                return "".join(said), event
            assert isinstance(event, Text)
            said.append(event.text)
    raise AssertionError("no Finish came out")


@given(spelled, prose, fences, ends, cuts)
def test_an_object_or_array_is_found_in_any_dressing_at_any_cut(
    spelling: tuple[Any, str], before: str, fence: tuple[str, str], after: str, places: list[int]
) -> None:
    value, text = spelling
    if not isinstance(value, dict | list):
        value, text = {"a": value}, f'{{"a": {text}}}'
    answer = before + fence[0] + text + fence[1] + after
    said, _ = run(pieces(answer, places), frozenset({kind_of(value)}))
    assert said == text


@given(spelled, fences, st.sampled_from(["", " ", "\n"]), cuts)
def test_a_value_of_any_type_is_found_at_the_front_and_in_a_fence(
    spelling: tuple[Any, str], fence: tuple[str, str], before: str, places: list[int]
) -> None:
    value, text = spelling
    said, _ = run(pieces(before + fence[0] + text + fence[1], places), ALL)
    assert said == text
    assert run(pieces(before + fence[0] + text + fence[1], places), frozenset({kind_of(value)}))[0] == text


@given(spelled, cuts)
def test_bare_json_stays_as_it_is(spelling: tuple[Any, str], places: list[int]) -> None:
    value, text = spelling
    assert run(pieces(text, places), frozenset({kind_of(value)}))[0] == text


@given(st.text('{}[]"\\`1tn a\n:,-', max_size=60), st.sets(st.sampled_from(KINDS)), cuts)
def test_the_cut_never_matters_and_nothing_is_made_up(text: str, kinds: set[str], places: list[int]) -> None:
    whole, _ = run([text], frozenset(kinds))
    assert whole in text
    assert run(pieces(text, places), frozenset(kinds))[0] == whole
    assert run(list(text), frozenset(kinds))[0] == whole


@given(st.text(st.characters(exclude_characters='{["')), cuts)
def test_an_answer_without_json_is_given_back(text: str, places: list[int]) -> None:
    assert run(pieces(text, places), CONTAINERS)[0] == text


@given(spelled, cuts)
def test_what_is_certain_is_passed_on_at_once(spelling: tuple[Any, str], places: list[int]) -> None:
    text = json.dumps({"key": spelling[0]})
    extract, read, said = Extract(frozenset({"object"})), "", ""
    for part in pieces(f"```json\n{text}", places):
        read += part
        said += "".join(event.text for event in extract.feed([Text(part)]) if isinstance(event, Text))
        if len(read) >= len('```json\n{"key":'):
            assert said == read.removeprefix("```json\n")


@pytest.mark.parametrize(
    ("answer", "kinds", "wanted"),
    [
        ("The answer is 42.", {"number"}, "The answer is 42."),
        ("The answer:\n```\n42\n```", {"number"}, "42"),
        ("42", {"number"}, "42"),
        ("-1.5e3\n", {"number"}, "-1.5e3"),
        ("01", {"number"}, "01"),
        ("nothing", {"null"}, "nothing"),
        ("null", {"null"}, "null"),
        ("null", {"object", "null"}, "null"),
        ("true.", {"boolean"}, "true."),
        ('"a \\" b" she said', {"string"}, '"a \\" b"'),
        ('He said "a"', {"string"}, 'He said "a"'),
        ('[1] says {"a": 1}', {"object"}, '{"a": 1}'),
        ("[see] [true]", {"array"}, "[true]"),
        ('{"a": 1', {"object"}, '{"a": 1'),
        ('{"a": "}', {"object"}, '{"a": "}'),
        ("{}", {"array"}, "{}"),
        ('Here {"y"} is: ```json\n{"x": 1}\n```', {"object"}, '{"x": 1}'),
        ('The key {"a{}": 1} is odd', {"object"}, '{"a{}": 1}'),
        ('{"a{}', {"object"}, "{}"),
        ('{"a\\": {}": 1}', {"object"}, '{"a\\": {}": 1}'),
        ('{"' + "k" * 2 * MAX_KEY + '": 1} so', {"object"}, '{"' + "k" * 2 * MAX_KEY + '": 1}'),
        ('{"' + "{}" * MAX_KEY + '": 1}', {"object"}, '{"' + "{}" * MAX_KEY + '": 1}'),
        ('{"a": [1]}', {"array"}, "[1]"),
        ("", {"object"}, ""),
        ("{" + " " * (MAX_GAP + 1) + "}", {"object"}, "{" + " " * (MAX_GAP + 1) + "}"),
        ("```json\n```\n{}", {"object", "number"}, "{}"),
    ],
)
def test_examples(answer: str, kinds: set[str], wanted: str) -> None:
    assert run([answer], frozenset(kinds))[0] == wanted
    assert run(list(answer), frozenset(kinds))[0] == wanted


def test_other_events_pass_and_logprobs_stay_with_their_text() -> None:
    def token(text: str) -> dict[str, Any]:
        return {"token": text, "logprob": -0.5, "bytes": None, "top_logprobs": []}

    words = ["Sure", ": ", '{"a":', " 1", "}", "\n", "Bye"]
    extract, out = Extract(frozenset({"object"})), list[Event]()
    usage = Usage(1, 2)
    for batch in (
        [Reasoning("hm {"), Extra({"x": 1})],
        *([Text(word, (token(word),))] for word in words),
        [Finish("stop", usage=usage)],
    ):
        out += extract.feed(batch)
    assert out[:2] == [Reasoning("hm {"), Extra({"x": 1})]
    said = [event for event in out if isinstance(event, Text)]
    assert [event.text for event in said] == ['{"a":', " 1", "}"]
    assert [event.logprobs for event in said] == [(token(word),) for word in ('{"a":', " 1", "}")]
    assert out[-1] == Finish("stop", usage=usage)


def test_a_whole_value_ends_with_stop_and_a_cut_one_does_not() -> None:
    assert run(['{"a": 1} and so on'], CONTAINERS, "length")[1].reason == "stop"
    assert run(['{"a": 1'], CONTAINERS, "length")[1].reason == "length"
    assert run(["{}"], CONTAINERS, "content_filter")[1].reason == "content_filter"


def test_a_model_that_talks_on_is_not_listened_to() -> None:
    extract = Extract(CONTAINERS)
    assert extract.feed([Text("{}" + "x" * MAX_REST)]) == [Text("{}")]
    assert extract.feed([Text("y")]) == [Finish("stop")]
    end = Finish("length", usage=Usage(1, 2))
    [_, finish] = Extract(CONTAINERS).feed([Text("{}"), Text("x" * 2 * MAX_REST), end])
    assert finish == Finish("stop", usage=Usage(1, 2))


@given(st.integers(0, 2 * MAX_REST), st.booleans(), cuts)
def test_it_ends_at_the_same_character_however_it_was_cut(rest: int, calls: bool, places: list[int]) -> None:
    text = "{}" + "x" * rest
    behind = [ToolStart(0, "call_1", "f"), Finish("tool_calls")] if calls else [Finish("content_filter")]
    whole = Extract(CONTAINERS).feed([Text(text), *behind])
    extract, said = Extract(CONTAINERS), list[Event]()
    for batch in [*([Text(part)] for part in pieces(text, places)), behind]:
        said += extract.feed(batch)
        if said and isinstance(said[-1], Finish):
            break
    assert said == list(whole)
    assert len(whole) == (2 if rest > MAX_REST or not calls else 3)


def test_prose_ends_at_the_same_character_however_it_was_cut() -> None:
    for before, found in ((MAX_PROSE, True), (MAX_PROSE + 1, False)):
        text = "x" * before + '{"key": 1}'
        for size in (len(text), 1000, 7):
            parts = [text[at : at + size] for at in range(0, len(text), size)]
            assert run(parts, CONTAINERS)[0] == ('{"key": 1}' if found else text)


def test_endless_prose_is_given_back_and_held_no_longer() -> None:
    extract = Extract(CONTAINERS)
    assert extract.feed([Text("x" * MAX_PROSE)]) == []
    assert extract.feed([Text("y"), Text("{}")])[-1] == Text("{}")


def seconds(text: str, size: int) -> float:
    parts = [Text(text[at : at + size]) for at in range(0, len(text), size)]
    best = 1e9
    for _ in range(3):
        extract = Extract(ALL)
        begun = process_time()
        for part in parts:
            extract.feed([part])
        best = min(best, process_time() - begun)
    return best


@pytest.mark.parametrize(
    "text",
    ["a ", "{ ", '["\\', "```a", "[t", "[" * 3, '{"a":[1,2,"x"]', '{"a', '{"' + "a" * 100],
)
def test_the_time_is_linear(text: str) -> None:
    short, long = (text * (length // len(text)) for length in (20_000, 160_000))
    assert seconds(long, 3) < 40 * seconds(short, 3)
