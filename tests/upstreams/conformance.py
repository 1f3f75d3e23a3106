"""One fixture a kind of upstream: how each thing that can happen behind it is brought about.

Rule: the suite in ``test_conformance.py`` runs against every member of the union of kinds; a kind that has no
fixture here fails it. A kind without a connection says so (``wired``) and is excused from what needs one.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from gateway.core.call import Call
from gateway.upstreams import Upstream
from gateway.upstreams.demo import DemoConfig, DemoUpstream
from gateway.upstreams.modal_sdk import ModalUpstream
from gateway.upstreams.modal_sdk.config import ModalConfig
from tests.upstreams import fake
from tests.upstreams.calling import AT, ask, chat, chatting, prompting
from tests.upstreams.fake import Fake, Peer, Script
from tests.upstreams.modal_fake import FakeModal


@dataclass(frozen=True)
class Kit:
    """A kind, and the bytes its server sends: ``he`` and `` llo``, with a usage of 3 and 2 tokens."""

    call: Callable[[], Call]
    open: Callable[..., AbstractAsyncContextManager[tuple[Upstream, Fake]]]  # (script, **config)
    wired: bool = True
    first: bytes = b""  # head and first piece of a streamed answer
    rest: bytes = b""  # the other piece, finish, usage, end marker
    whole: bytes = b""  # the same in one piece
    garbage: bytes = b""  # a success that is no answer


STREAM_HEAD = fake.head()


def delta(content: str | None, reason: str | None = None) -> bytes:
    made = {} if content is None else {"content": content}
    choice = {"index": 0, "delta": made, "finish_reason": reason}
    return fake.event(
        {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    )


def chunks(*events: bytes) -> bytes:
    return b"".join(fake.chunk(event) for event in events)


@asynccontextmanager
async def _prompt(script: Script, **config: float) -> AsyncIterator[tuple[Upstream, Fake]]:
    async with fake.serving(script) as server, prompting(server.url, **config) as upstream:
        yield upstream, server


@asynccontextmanager
async def _openai(script: Script, **config: float) -> AsyncIterator[tuple[Upstream, Fake]]:
    async with fake.serving(script) as server, chatting(server.url + "v1", **config) as upstream:
        yield upstream, server


@asynccontextmanager
async def _demo(script: Script) -> AsyncIterator[tuple[Upstream, Fake]]:
    """Nothing reaches the server: what this kind says is in its config."""
    async with fake.serving(script) as server:
        yield DemoUpstream("m", DemoConfig(responses=("he llo",)), model="m", at="models.m.upstream"), server


async def _generate(prompt: str) -> AsyncGenerator[object, None]:
    yield "he"
    yield {"prompt": " llo"}
    yield {"finish_reason": "stop", "usage": {"prompt_tokens": 3, "completion_tokens": 2}}


@asynccontextmanager
async def _modal(script: Script) -> AsyncIterator[tuple[Upstream, Fake]]:
    """Nothing reaches the server: Modal's SDK is a fake in this process, and its failures are its own."""
    sdk = FakeModal(functions={"f": _generate})
    config = ModalConfig(app="demo", function="f")
    async with fake.serving(script) as server:
        upstream = ModalUpstream("m", config, model="m", at=AT, sdk=sdk)
        try:
            yield upstream, server
        finally:
            await upstream.aclose()
            await sdk.stop()


KITS = {
    "prompt": Kit(
        call=ask,
        open=_prompt,
        first=STREAM_HEAD + chunks(fake.event({"prompt": "he"})),
        rest=chunks(
            fake.event({"prompt": " llo"}),
            fake.event({"finish_reason": "stop", "usage": {"prompt_tokens": 3, "completion_tokens": 2}}),
            fake.event("[DONE]"),
        )
        + fake.LAST_CHUNK,
        whole=fake.response(
            b'{"prompt":"he llo","finish_reason":"stop","usage":{"prompt_tokens":3,"completion_tokens":2}}'
        ),
        garbage=fake.response(b'{"text":"he llo"}'),
    ),
    "openai": Kit(
        call=chat,
        open=_openai,
        first=STREAM_HEAD + chunks(delta("he")),
        rest=chunks(
            delta(" llo"),
            delta(None, "stop"),
            fake.event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}),
            fake.event("[DONE]"),
        )
        + fake.LAST_CHUNK,
        whole=fake.response(
            b'{"choices":[{"index":0,"message":{"content":"he llo"},"finish_reason":"stop"}],'
            b'"usage":{"prompt_tokens":3,"completion_tokens":2}}'
        ),
        garbage=fake.response(b'{"prompt":"he llo"}'),
    ),
    "demo": Kit(call=ask, open=_demo, wired=False),
    "modal": Kit(call=ask, open=_modal, wired=False),
}


def saying(*parts: bytes) -> Script:
    """Answer every request with these bytes."""
    return fake.always(b"".join(parts))


def silent_after(*parts: bytes) -> Script:
    """Send these bytes, then nothing until the other side hangs up."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"".join(parts))
        await peer.gone()

    return script
