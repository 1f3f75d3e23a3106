"""What FastChat 0.2.36 really answers, replayed: the right status, and no error that looks like an answer."""

from pathlib import Path

import pytest

from gateway.core.events import Usage
from tests.upstreams import fake
from tests.upstreams.calling import Outcome, chat, chatting, outcome
from tests.upstreams.fake import soon

RECORDINGS = Path(__file__).parent / "recordings" / "fastchat-0.2.36"
NAMES = sorted(path.stem for path in RECORDINGS.glob("*.http"))

# recording -> (status, code, what the message must name)
ERRORS = {
    "no-worker": (502, "upstream_error", ""),
    "out-of-range": (400, "upstream_bad_request", "3.0 is greater than the maximum of 2 - 'temperature'"),
    "too-long": (400, "context_length_exceeded", "maximum context length is 10 tokens"),
    "unknown-model": (502, "upstream_not_found", "models.m.upstream.model"),
    "unknown-role": (502, "upstream_error", ""),
    "validation": (400, "upstream_bad_request", ""),
    "validation-pydantic-2": (400, "upstream_bad_request", ""),
    "worker-503": (502, "upstream_error", "Service Unavailable"),
    "worker-died-mid-stream": (502, "upstream_cut", ""),
    "worker-error": (503, "out_of_memory", ""),
    "worker-error-mid-stream": (503, "out_of_memory", ""),
    "worker-error-stream": (503, "out_of_memory", ""),
    "wrong-key": (502, "upstream_auth", "models.m.upstream"),
}


async def replayed(name: str) -> Outcome:
    answer = (RECORDINGS / f"{name}.http").read_bytes()
    async with fake.serving(fake.once(answer)) as server, chatting(server.url + "v1") as upstream:
        return await soon(outcome(upstream, chat(stream="stream" in name)))


def test_every_recording_is_replayed() -> None:
    known = sorted([*ERRORS, "whole", "stream"])
    assert known == NAMES


async def test_a_whole_answer() -> None:
    got = await replayed("whole")
    assert got.text == "你好！I am Vicuna."
    assert (got.finish.reason, got.finish.usage) == ("stop", Usage(42, 4))


async def test_a_stream_has_no_usage() -> None:
    got = await replayed("stream")
    assert got.text == "你好！I am Vicuna."
    assert (got.finish.reason, got.finish.usage) == ("stop", None)


@pytest.mark.parametrize("name", ERRORS)
async def test_an_error_has_the_status_it_should_have(name: str) -> None:
    got = await replayed(name)
    status, code, named = ERRORS[name]
    assert (got.failure.status, got.failure.code) == (status, code)
    assert named in got.failure.message
    assert "the secret prompt" not in got.failure.message
    assert "openai_api_server" not in got.failure.message
    assert got.text == ("你好" if "mid-stream" in name else "")
