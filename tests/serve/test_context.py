"""What must fit the model, what its defaults mean, and what a client is told of its own request."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from gateway.app import build_app
from gateway.core.call import PromptCall
from gateway.core.events import Finish, Text, Usage
from gateway.serve.steps import LONG_PROMPT
from gateway.settings import settings_from
from gateway.tokens import counter
from tests.serve.house import Desk, House, Scripted, Visit, container, deployed, house, listening, settings
from tests.serve.test_chat import chunks, post

LIMITED: dict[str, Any] = {"spec": {"context_length": 10}, "count": len}


def says(content: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": content}]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_prompt_that_does_not_fit_is_refused_in_the_words_that_clients_know(stream: bool) -> None:
    upstream = Scripted("a")
    desk = Desk(deployed(upstream, **LIMITED))
    line = await desk.ask(messages=says("x" * 11), stream=stream)
    assert line.status == 400
    assert line.error == {
        "message": "This model's maximum context length is 10 tokens. However, your messages resulted in "
        "11 tokens (context_length_exceeded). Please shorten the messages or lower max_tokens.",
        "type": "invalid_request_error",
        "param": "messages",
        "code": "context_length_exceeded",
    }
    assert upstream.calls == []
    assert desk.records[0].code == "context_length_exceeded"


async def test_a_prompt_that_just_fits_is_counted_as_the_tokenizer_counts() -> None:
    desk = Desk(deployed(Scripted("a", [[Text("four"), Finish("stop")]]), **LIMITED))
    line = await desk.ask(messages=says("x" * 10))
    assert json.loads(line.body)["usage"] == {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14}
    assert (b"x-gateway-usage", b"tokenizer") in line.said[0]["headers"]


@pytest.mark.parametrize(
    ("fields", "defaults", "status"),
    [
        ({"max_tokens": 8}, {}, 200),
        ({"max_tokens": 9}, {}, 400),
        ({"max_completion_tokens": 9}, {}, 400),
        ({}, {"max_tokens": 9}, 400),
        ({"max_tokens": 8}, {"max_tokens": 9}, 200),
    ],
)
async def test_what_may_be_answered_has_to_fit_too(
    fields: dict[str, Any], defaults: dict[str, Any], status: int
) -> None:
    desk = Desk(deployed(Scripted("a"), spec={"context_length": 10, "defaults": defaults}, count=len))
    line = await desk.ask(**fields)
    assert line.status == status
    if status == 400:
        assert "resulted in 2 tokens and 9 more were asked for" in line.error["message"]


@pytest.mark.parametrize("model", [{"count": len}, {"spec": {"context_length": 10}}])
async def test_nothing_is_refused_where_the_length_or_the_count_is_not_known(model: dict[str, Any]) -> None:
    assert (await Desk(deployed(Scripted("a"), **model)).ask(messages=says("x" * 50))).status == 200


async def test_long_prompts_are_counted_off_the_event_loop() -> None:
    threads: list[bool] = []

    def count(text: str) -> int:
        if text.startswith("x"):
            threads.append(threading.current_thread() is threading.main_thread())
        return 1

    desk = Desk(deployed(Scripted("a"), count=count))
    for size in (LONG_PROMPT, LONG_PROMPT + 1):
        assert (await desk.ask(messages=says("x" * size))).status == 200
    assert threads == [True, False]


async def test_a_tokenizer_file_counts(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers", reason="the extra `tokenizers` is not installed")
    file = tmp_path / "tokenizer.json"
    words = {"type": "WordLevel", "vocab": {"[UNK]": 0, "hi": 1}, "unk_token": "[UNK]"}
    file.write_text(
        json.dumps(
            {
                "version": "1.0",
                "added_tokens": [],
                "pre_tokenizer": {"type": "WhitespaceSplit"},
                "model": words,
            }
        )
    )
    assert counter(file)("hi there hi") == counter(tmp_path)("hi there hi") == 3

    async def speak(visit: Visit) -> None:
        await visit.answer({"prompt": "one two"})

    async with container(speak) as behind:
        config = settings(behind.port, tokenizer=file.name, context_length=3)
        async with listening(build_app(settings_from(config, {}), folder=tmp_path)) as port:
            at = House(port, behind)
            fits = await post(at, messages=says("hi there hi"))
            assert fits.json()["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
            refused = await post(at, messages=says("hi there hi you"))
            assert refused.json()["error"]["code"] == "context_length_exceeded"
            assert len(behind.visits) == 1


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_more_than_the_model_answers_with_is_refused_by_name(name: str) -> None:
    upstream = Scripted("a")
    desk = Desk(deployed(upstream, spec={"max_output_tokens": 5}))
    line = await desk.ask(**{name: 6})
    assert (line.status, line.error["param"]) == (400, name)
    assert "at most 5 tokens" in line.error["message"]
    assert upstream.calls == []
    assert (await desk.ask(**{name: 5})).status == 200
    [call] = upstream.calls
    assert isinstance(call, PromptCall)
    assert call.arguments["max_tokens"] == 5


async def test_the_configs_limits_reach_the_model() -> None:
    async with house(lambda visit: visit.answer({"prompt": "x"}), max_output_tokens=5) as at:
        assert (await post(at, max_tokens=6)).status_code == 400
        assert (await post(at, max_tokens=5)).status_code == 200


async def test_a_default_stop_written_as_a_string_is_one_stop() -> None:
    async def speak(visit: Visit) -> None:
        assert visit.json["stop"] == ["END"]
        await visit.say("NO EDEN", " END", " more")

    async with house(speak, defaults={"stop": "END"}) as at:
        answer = (await post(at)).json()
        assert answer["choices"][0]["message"]["content"] == "NO EDEN "


async def test_the_usage_of_a_stream_names_what_the_upstream_ignored() -> None:
    turn = [[Text("hello")], [Finish("stop", Usage(1, 1), ignored=("top_k", "not a name"))]]
    desk = Desk(deployed(Scripted("a", turn)))
    line = await desk.ask(stream=True, stream_options={"include_usage": True}, store=True)
    assert chunks(line.body.decode())[-1]["x_gateway"] == {"usage": "upstream", "ignored": ["store", "top_k"]}
    assert desk.records[0].ignored == ("store", "top_k")
    whole = await desk.ask(store=True)
    assert (b"x-gateway-ignored", b"store, top_k") in whole.said[0]["headers"]
