"""What holds for every dialect, whatever a model writes and wherever it is cut."""

import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.events import Extra, Finish, Reasoning, Text, ToolArgs, ToolStart, Usage
from gateway.core.tools import DIALECTS
from gateway.core.tools.reader import MAX_HELD, MAX_SPACE
from gateway.core.tools.watcher import ONE_CALL, Watcher
from tests.core.tools.answers import TOOLS, calls_of, pieces, read, text_of, watch
from tests.core.tools.test_golden import CASES

EVERY = pytest.mark.parametrize("dialect", sorted(DIALECTS))
CUTS = st.lists(st.integers(0, 400), max_size=12)
HIDES_MARKUP = {"harmony", "command_r"}  # markup around text is taken away there, calls or not

# Pieces of what models write, so that broken and nested markup is likely.
SCRAPS = sorted(
    {
        case.read_text(encoding="utf-8")[at : at + size]
        for case in CASES
        for at in range(0, 200, 17)
        for size in (4, 19)
    }
    | {
        "<tool_call>",
        "</tool_call>",
        "[TOOL_CALLS]",
        "[ARGS]",
        '{"name": "now"',
        ', "arguments": {}',
        "}",
        "]",
        "\n",
    }
    | {
        "<|channel|>",
        "<|message|>",
        "<function=now>",
        "<parameter=a>",
        "now(",
        "```json\n",
        '"',
        "\\",
        "x",
        " ",
        ";",
    }
)
answers = st.lists(st.sampled_from(SCRAPS), max_size=12).map("".join)


@EVERY
@given(text=answers, cuts=CUTS)
def test_any_cut_gives_the_same_and_no_word_is_lost(dialect: str, text: str, cuts: list[int]) -> None:
    whole = read(watch(dialect), [text])
    assert read(watch(dialect), pieces(text, cuts)) == whole
    assert read(watch(dialect), list(text)) == whole
    calls = calls_of(whole)
    finish = whole[-1]
    assert isinstance(finish, Finish)
    assert finish.reason == ("tool_calls" if calls else "stop")
    if not calls and dialect not in HIDES_MARKUP:
        assert text_of(whole) == text


@EVERY
@given(text=st.text(max_size=60), cuts=CUTS)
def test_text_without_markup_comes_out_as_it_went_in(dialect: str, text: str, cuts: list[int]) -> None:
    assert text_of(read(watch(dialect), pieces(text, cuts), "length")) == text


values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text("ab\n\\\"'{}[](),=é😀 ", max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3)
    ),
    max_leaves=6,
)
# Text between tags cannot hold the tags, and a string that reads as a number is one unless it is declared.
given_arguments = st.fixed_dictionaries(
    {"city": st.text("ab\n\\\"'{}[](),=é😀 ", max_size=12)},
    optional={
        "days": st.integers(-9, 9),
        "deep": st.dictionaries(st.text("abc", min_size=1), values, max_size=3),
    },
)


@EVERY
@given(arguments=st.lists(given_arguments, min_size=1, max_size=3), cuts=CUTS)
def test_what_a_dialect_writes_it_reads(
    dialect: str, arguments: list[dict[str, Any]], cuts: list[int]
) -> None:
    if not DIALECTS[dialect].parallel:
        del arguments[1:]
    calls = [
        {"id": "call_1", "function": {"name": "get_weather", "arguments": json.dumps(a)}} for a in arguments
    ]
    events = read(watch(dialect), pieces(DIALECTS[dialect].said(calls), cuts))
    assert [(name, json.loads(text)) for name, text in calls_of(events)] == [
        ("get_weather", a) for a in arguments
    ]
    assert text_of(events) == ""


@EVERY
def test_a_forced_call_is_read_from_its_prefix_on(dialect: str) -> None:
    made = DIALECTS[dialect]
    whole = made.said([{"function": {"name": "get_weather", "arguments": '{"city": "Köln"}'}}])
    for choice in (None, "get_weather"):
        begin = made.prefix(choice)
        if dialect == "generic" or whole.startswith(begin.rstrip()):
            rest = whole[len(begin) :]
            assert calls_of(read(watch(dialect, begin), list(rest))) == [("get_weather", '{"city": "Köln"}')]


@EVERY
def test_a_forced_call_that_broke_gives_back_its_prefix(dialect: str) -> None:
    begin = DIALECTS[dialect].prefix(None)
    events = read(watch(dialect, begin), [" no, I will not"])
    if not calls_of(events):
        assert text_of(events).endswith(f"{begin} no, I will not".strip()) or dialect in HIDES_MARKUP


@EVERY
def test_schemas_say_what_follows_the_prefix(dialect: str) -> None:
    made = DIALECTS[dialect]
    schema = made.schema(TOOLS, "get_weather")
    if schema is not None:
        begin = made.prefix("get_weather")
        assert schema == TOOLS[0]["function"]["parameters"]
        assert calls_of(read(watch(dialect, begin), ['{"city": "Köln"}'])) == [
            ("get_weather", '{"city": "Köln"}')
        ]
    schema = made.schema(TOOLS, None)
    if schema is not None:
        name, arguments = schema["anyOf"][0]["required"]
        written = json.dumps({name: "get_weather", arguments: {"city": "Rom"}})
        assert calls_of(read(watch(dialect, made.prefix(None, held=True)), [written])) == [
            ("get_weather", '{"city": "Rom"}')
        ]


@EVERY
def test_the_instructions_show_a_call_that_the_dialect_reads(dialect: str) -> None:
    text = DIALECTS[dialect].instruct(TOOLS)
    assert "The forecast." in text
    shown = text.split("describe:\n\n")[1].split("\n\nSeveral")[0].split("\n\nWrite nothing")[0]
    assert calls_of(read(watch(dialect), [shown])) == [("get_weather", '{"city": "..."}')]


@EVERY
def test_one_call_is_enough_where_one_was_asked_for(dialect: str) -> None:
    made = DIALECTS[dialect]
    calls = [{"function": {"name": "get_weather", "arguments": '{"city": "Köln"}'}}] * 2
    filter = watch(dialect, single=True)
    usage = Usage(3, 4)
    out = filter.feed([Text(made.said(calls) + " and more"), Finish("length", usage)])
    assert calls_of(out) == [("get_weather", '{"city": "Köln"}')]
    assert out[-1] == Finish("tool_calls", usage, stopped_by=ONE_CALL)
    out = []
    filter = watch(dialect, single=True)
    for letter in made.said(calls):
        out += filter.feed([Text(letter)])
        if out and isinstance(out[-1], Finish):
            break
    assert calls_of(out) == [("get_weather", '{"city": "Köln"}')]
    assert out[-1] == Finish("tool_calls", stopped_by=ONE_CALL)


@EVERY
def test_arguments_stream_as_they_come(dialect: str) -> None:
    made = DIALECTS[dialect]
    text = made.said(
        [{"function": {"name": "get_weather", "arguments": json.dumps({"city": "a" * 500, "days": 1})}}]
    )
    filter = watch(dialect)
    sizes = [
        len(event.text)
        for letter in text
        for event in filter.feed([Text(letter)])
        if isinstance(event, ToolArgs)
    ]
    whole_values = dialect in ("chatglm3", "pythonic")  # a literal goes on when it is complete
    assert max(sizes) > 500 if whole_values else max(sizes) <= 12


@EVERY
@pytest.mark.parametrize(
    "beginning", ["", "\n", '{"name": "now", "arguments": {"a": "', "<tool_call>", "now\n```python\n"]
)
def test_no_more_is_held_than_allowed(dialect: str, beginning: str) -> None:
    filter = watch(dialect)
    assert isinstance(filter, Watcher)
    for piece in [beginning, *(["x y\n"] * 2000), *([" " * 4096] * (MAX_HELD // 4096 + 9))]:
        filter.feed([Text(piece)])
        assert filter._reader.held <= MAX_HELD
        assert len(filter._reader.text) <= 4096 + MAX_SPACE + 64


@pytest.mark.parametrize("dialect", ["hermes", "llama3_json", "generic", "mistral"])
@pytest.mark.parametrize("at", [MAX_HELD - 40, MAX_HELD, MAX_HELD + 40])
def test_a_name_behind_arguments_that_are_too_long_is_text(dialect: str, at: int) -> None:
    begin = {"hermes": "<tool_call>", "mistral": "[TOOL_CALLS] ["}.get(dialect, "")
    text = f'{begin}{{"parameters": {{"a": "{"x" * at}"}}, "name": "now"}}<tool_call> {{"name": "now"}}'
    whole = read(watch(dialect), [text])
    assert read(watch(dialect), pieces(text, [5, 70, MAX_HELD - 3, MAX_HELD, MAX_HELD + 20])) == whole
    if at >= MAX_HELD:
        assert text_of(whole).startswith(text[: MAX_HELD - 200])


# Unfinished, nested, endless: what would cost the square of its length if it were read again and again.
HOSTILE = [
    '<tool_call>{"name": "now", "arguments": {}, "x": a',
    '<tool_call>{"name":"now","arguments":{},"x":a',
    '```\n{"name":"now","arguments":{},"id":a',
    '<tool_call>{"name": "now", "arguments": {"x": [',
    '<tool_call>{"arguments": "',
    '<tool_call>{"x": {"y": ["',
    '[TOOL_CALLS] [{"name": "now", "arguments": {}}, ',
    '[TOOL_CALLS]now[ARGS]{"a',
    "<tool_call>\n<function=get_weather>\n<parameter=city>\n",
    '```json\n{"name": "now", "arguments": {}, "id": ',
    "<|channel|>commentary to=functions.now",
    '<|python_tag|>{"name": "now", "parameters": {}};',
    "[now(a='",
    "\\",
    "\n",
]


@EVERY
@pytest.mark.parametrize("unit", HOSTILE, ids=range(len(HOSTILE)))
def test_work_grows_as_the_text_does(dialect: str, unit: str) -> None:
    def work(length: int) -> int:
        steps = 0

        def count(frame: Any, event: str, argument: Any) -> None:
            nonlocal steps
            steps += 1

        parts = pieces((unit * length)[:length], range(0, length, 7))
        sys.setprofile(count)
        try:
            read(watch(dialect), parts)
        finally:
            sys.setprofile(None)
        return steps

    assert work(8000) < 2.5 * work(4000)


def entry(token: str) -> dict[str, Any]:
    return {"token": token, "logprob": -0.5, "bytes": None, "top_logprobs": []}


@EVERY
@given(tokens=st.lists(st.sampled_from(SCRAPS).filter(bool), max_size=10), together=st.booleans())
def test_logprobs_stay_with_their_tokens(dialect: str, tokens: list[str], together: bool) -> None:
    events = [Text(token, (entry(token),)) for token in tokens]
    if together:
        events = [Text("".join(tokens), tuple(entry(token) for token in tokens))]
    filter, out = watch(dialect), []
    for event in [*events, Finish()]:
        out += filter.feed([event])
    said = text_of(out)
    kept = [e["token"] for event in out if isinstance(event, Text) for e in event.logprobs or ()]
    assert len("".join(kept)) <= len(said)
    assert said == text_of(read(watch(dialect), tokens))
    if not calls_of(out) and dialect not in HIDES_MARKUP:
        assert kept == tokens


@EVERY
def test_plain_events_pass_as_they_are(dialect: str) -> None:
    filter = watch(dialect)
    filter.feed([Text("So much for that.")])
    events = [Text(" word"), Extra({"a": 1}), Reasoning("hm"), Text("")]
    out = filter.feed(events)
    assert all(a is b for a, b in zip(out, events, strict=True))


def test_length_stays_length_and_the_rest_of_the_end_is_kept() -> None:
    call = '<tool_call>{"name": "now"}</tool_call>'
    for reason, kept in [("stop", "tool_calls"), ("length", "length"), ("content_filter", "content_filter")]:
        out = watch("hermes").feed([Text(call), Finish(reason, Usage(1, 2), ignored=("seed",))])
        assert out == [
            ToolStart(0, "call_0", "now"),
            ToolArgs(0, "{}"),
            Finish(kept, Usage(1, 2), ignored=("seed",)),
        ]


def test_dialects_stand_under_their_names_and_those_that_hide_markup_say_so() -> None:
    assert all(made.name == name for name, made in DIALECTS.items())
    assert {name for name, made in DIALECTS.items() if made.always} == HIDES_MARKUP


def test_mistral_ids_are_nine_letters_for_its_own_templates() -> None:
    identify = DIALECTS["mistral"].identify
    assert identify("call_0123456789abcdef01234567") == "f01234567"
    assert DIALECTS["hermes"].identify("call_1") == "call_1"
