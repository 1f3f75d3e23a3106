"""Whatever a client sends, it gets an answer or an error that is its own to mend."""

import asyncio
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.app import build_app
from gateway.settings import settings_from

APP = build_app(
    settings_from(
        {
            "auth": {"mode": "none"},
            "models": {
                "m": {"upstream": {"kind": "demo", "responses": ["a b c", "你好 STOP"]}, "logprobs": True}
            },
        },
        {},
    )
)
FIELDS = (
    "model", "messages", "stream", "n", "stop", "max_tokens", "temperature", "logprobs", "top_logprobs",
    "seed", "logit_bias", "tools", "tool_choice", "response_format", "stream_options", "user", "functions",
    "audio", "x",
)  # fmt: skip
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-2, 20)
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=6)
    | st.sampled_from(["m", "user", "system", "assistant", "tool", "text", "<|im_end|>"])
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "text", "name", "tool_calls", "function"]), inner
        )
    ),
    max_leaves=10,
)
roles = st.sampled_from(["user", "system", "assistant", "tool", "developer", "function"])
messages = st.lists(
    st.fixed_dictionaries(
        {"role": roles, "content": st.text(max_size=8) | st.none()}, optional={"name": values}
    ),
    max_size=4,
)


async def call(body: bytes, path: str) -> tuple[int, bytes]:
    """One request straight into the application; its status and body."""
    inbox = [{"type": "http.request", "body": body, "more_body": False}]
    status, said, never = 0, b"", asyncio.Event()

    async def receive() -> Any:
        if inbox:
            return inbox.pop()
        await never.wait()
        raise AssertionError("nothing sets it")

    async def send(message: Any) -> None:
        nonlocal status, said
        status = message.get("status", status)
        said += message.get("body", b"")

    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "headers": headers,
        "http_version": "1.1",
        "query_string": b"",
    }
    await APP(scope, receive, send)
    return status, said


def check(body: bytes) -> None:
    for path in ("/v1/chat/completions", "/v1/chat/completions/render"):
        status, said = asyncio.run(call(body, path))
        assert status == 200 or (400 <= status < 500 and set(json.loads(said)) == {"error"}), (status, said)


@given(st.binary(max_size=40))
def test_any_bytes(body: bytes) -> None:
    check(body)


@given(values)
def test_any_json(value: Any) -> None:
    check(json.dumps(value).encode())


@given(messages | values, st.dictionaries(st.sampled_from(FIELDS), values, max_size=5))
def test_any_fields(said: Any, fields: dict[str, Any]) -> None:
    check(json.dumps({"model": "m", "messages": said, **fields}).encode())


@given(messages, st.lists(st.text(max_size=3), max_size=5), st.booleans(), st.integers(1, 3))
def test_any_conversation_is_answered(said: Any, stop: list[str], stream: bool, n: int) -> None:
    body = {
        "model": "m",
        "messages": said or [{"role": "user", "content": "x"}],
        "stop": stop,
        "stream": stream,
        "n": n,
    }
    for message in body["messages"]:
        message.pop("name", None)
    status, answer = asyncio.run(call(json.dumps(body).encode(), "/v1/chat/completions"))
    assert status == 200
    assert answer.endswith(b"data: [DONE]\n\n") if stream else json.loads(answer)["choices"]
