"""Encoders: every byte of a stream is known, and a whole answer is the collected stream."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from gateway.core.encode import Head
from gateway.core.encode.chunks import DONE, Chunks
from gateway.core.encode.whole import Collector
from gateway.core.errors import UpstreamError, UpstreamTimeout
from gateway.core.events import Batch, Extra, Finish, Reasoning, Text, ToolArgs, ToolStart, Usage

HEAD = Head("chatcmpl-1", 1700000000, "my-model")
SAME = (
    '{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"my-model","choices":['
)


def objects(data: bytes) -> list[dict[str, Any]]:
    assert data.endswith(b"\n\n") or not data
    blocks = data.decode().split("\n\n")[:-1]
    return [json.loads(block.removeprefix("data: ")) for block in blocks]


def test_the_role_comes_first_with_empty_content() -> None:
    assert Chunks(HEAD).opening().decode() == (
        "data: " + SAME + '{"index":0,"delta":{"role":"assistant","content":""},'
        '"logprobs":null,"finish_reason":null}]}\n\n'
    )


def test_a_text_chunk_to_the_byte() -> None:
    assert Chunks(HEAD).feed(1, [Text('你"\n')]).decode() == (
        "data: "
        + SAME
        + '{"index":1,"delta":{"content":"你\\"\\n"},"logprobs":null,"finish_reason":null}]}\n\n'
    )


def test_the_finish_chunk_to_the_byte() -> None:
    assert Chunks(HEAD).feed(0, [Finish("length")]).decode() == (
        "data: " + SAME + '{"index":0,"delta":{},"logprobs":null,"finish_reason":"length"}]}\n\n'
    )


def test_usage_is_null_until_the_last_chunk_if_asked_for() -> None:
    encoder = Chunks(HEAD, include_usage=True)
    chunks = objects(encoder.opening() + encoder.feed(0, [Text("a"), Extra({"x": 1}), Finish()]))
    assert [chunk["usage"] for chunk in chunks] == [None] * 4
    [last] = objects(encoder.end(Usage(3, 4), {"usage": "upstream"}).removesuffix(DONE))
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    assert last["x_gateway"] == {"usage": "upstream"}


def test_no_usage_chunk_unless_asked_for() -> None:
    assert Chunks(HEAD).end(Usage(3, 4), {}) == DONE
    assert "usage" not in objects(Chunks(HEAD).feed(0, [Text("a")]))[0]


def test_a_late_error_is_one_event_that_clients_raise_on() -> None:
    [event] = objects(Chunks(HEAD).error(UpstreamTimeout("too slow")))
    assert event == {
        "error": {"message": "too slow", "type": "api_error", "param": None, "code": "upstream_timeout"}
    }


def test_line_separators_in_text_cannot_end_an_event() -> None:
    data = Chunks(HEAD).feed(0, [Text("a\u2028b\n\nc\r")])
    assert data.count(b"\n\n") == 1
    assert objects(data)[0]["choices"][0]["delta"]["content"] == "a\u2028b\n\nc\r"


ENTRY = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}
events = st.lists(
    st.one_of(
        st.text(max_size=5).map(Text),
        st.text(min_size=1, max_size=5).map(lambda text: Text(text, (ENTRY,))),
        st.text(min_size=1, max_size=5).map(Reasoning),
        st.text(max_size=5).map(lambda text: ToolArgs(0, text)),
        st.just(Extra({"annotations": []})),
    ),
    max_size=8,
)


@given(events, st.sampled_from(["stop", "length", "tool_calls"]))
def test_a_whole_answer_is_the_collected_stream(said: list[Any], reason: str) -> None:
    batch: Batch = [ToolStart(0, "call_1", "f"), *said, Finish(reason)]
    encoder, collector = Chunks(HEAD), Collector(HEAD)
    collector.feed(0, batch)
    whole = ChatCompletion.model_validate_json(collector.answer(Usage(1, 2)))
    chunks = [
        ChatCompletionChunk.model_validate(o) for o in objects(encoder.opening() + encoder.feed(0, batch))
    ]
    deltas = [chunk.choices[0].delta for chunk in chunks]
    message = whole.choices[0].message
    assert "".join(delta.content or "" for delta in deltas) == (message.content or "")
    assert message.tool_calls is not None
    arguments = [call.function.arguments for d in deltas for call in d.tool_calls or () if call.function]
    assert "".join(a or "" for a in arguments) == message.tool_calls[0].function.arguments  # type: ignore[union-attr]
    assert whole.choices[0].finish_reason == chunks[-1].choices[0].finish_reason == reason
    assert {(chunk.id, chunk.created, chunk.model) for chunk in chunks} == {
        ("chatcmpl-1", 1700000000, "my-model")
    }
    assert deltas[0].role == "assistant"
    assert not any(delta.role for delta in deltas[1:])


def test_choices_keep_their_index() -> None:
    collector = Collector(HEAD, 2)
    collector.feed(1, [Text("b"), Finish("length")])
    collector.feed(0, [Text("a"), Finish("stop")])
    answer = json.loads(collector.answer(Usage(1, 2)))
    assert [(c["index"], c["message"]["content"], c["finish_reason"]) for c in answer["choices"]] == [
        (0, "a", "stop"),
        (1, "b", "length"),
    ]


def test_unknown_fields_that_come_in_pieces_are_put_together() -> None:
    collector = Collector(HEAD)
    collector.feed(
        0, [Extra({"refusal": "I "}), Extra({"refusal": "cannot", "notes": [1]}), Extra({"notes": [2]})]
    )
    collector.feed(0, [Finish()])
    message = json.loads(collector.answer(Usage(1, 2)))["choices"][0]["message"]
    assert (message["refusal"], message["notes"]) == ("I cannot", [1, 2])


def test_an_answer_without_end_is_not_collected() -> None:
    collector = Collector(HEAD)
    with pytest.raises(UpstreamError):
        for _ in range(40):
            collector.feed(0, [Text("x" * (1 << 20))])
