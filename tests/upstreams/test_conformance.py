"""What every kind of upstream promises, asked of every kind."""

import asyncio
from contextlib import aclosing

import pytest

from gateway.core.errors import UpstreamError
from gateway.core.events import Finish, Text, Usage
from gateway.upstreams.kinds import KINDS
from tests.upstreams import fake
from tests.upstreams.calling import outcome
from tests.upstreams.conformance import KITS, Kit, saying, silent_after
from tests.upstreams.fake import Peer, soon


def test_every_kind_has_a_fixture() -> None:
    assert sorted(KINDS) == sorted(KITS), "tests/upstreams/conformance.py needs one fixture for each kind"


@pytest.fixture(params=sorted(KITS))
def kit(request: pytest.FixtureRequest) -> Kit:
    found: Kit = KITS[request.param]
    return found


@pytest.fixture(params=sorted(name for name, kit in KITS.items() if kit.wired))
def wired(request: pytest.FixtureRequest) -> Kit:
    """A kind that has a connection; the others cannot break this way."""
    found: Kit = KITS[request.param]
    return found


async def test_text_comes_in_order_with_one_finish_and_the_usage(kit: Kit) -> None:
    async with kit.open(saying(kit.first, kit.rest)) as (upstream, _):
        for _ in range(3):
            got = await soon(outcome(upstream, kit.call()))
            assert got.text == "he llo"
            assert (got.finish.reason, got.finish.usage) == ("stop", Usage(3, 2))


async def test_a_whole_answer_gives_the_same_events(wired: Kit) -> None:
    async with wired.open(saying(wired.whole)) as (upstream, _):
        got = await soon(outcome(upstream, wired.call()))
    assert got.events == [Text("he llo"), Finish("stop", Usage(3, 2))]


async def test_each_read_is_given_before_the_next(wired: Kit) -> None:
    heard = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(wired.first)
        await soon(heard.wait())
        await peer.send(wired.rest)

    async with wired.open(script) as (upstream, _), aclosing(upstream.events(wired.call())) as batches:
        assert await soon(anext(batches)) == [Text("he")]
        heard.set()
        rest = [event async for batch in batches for event in batch]
        assert rest == [Text(" llo"), Finish("stop", Usage(3, 2))]


@pytest.mark.parametrize(
    ("status", "body", "wanted"),
    [
        ("400 Bad Request", b'{"error":{"message":"x","code":"bad_request"}}', (400, "upstream_bad_request")),
        ("401 Unauthorized", b"", (502, "upstream_auth")),
        ("404 Not Found", b"", (502, "upstream_not_found")),
        ("429 Too Many Requests", b"", (429, "upstream_rate_limited")),
        ("500 Internal Server Error", b"Internal Server Error", (502, "upstream_error")),
        ("503 Service Unavailable", b"", (503, "upstream_cold")),
        (
            "503 Service Unavailable",
            b'{"error":{"message":"x","code":"out_of_memory"}}',
            (503, "out_of_memory"),
        ),
    ],
)
async def test_a_status_is_the_right_error(
    wired: Kit, status: str, body: bytes, wanted: tuple[int, str]
) -> None:
    async with wired.open(saying(fake.response(body, status=status))) as (upstream, server):
        failure = (await soon(outcome(upstream, wired.call()))).failure
        assert (failure.status, failure.code) == wanted
        assert len(server.requests) == 1


async def test_silence_before_the_first_event_is_a_timeout(wired: Kit) -> None:
    async with wired.open(silent_after(), first_event_timeout=0.2) as (upstream, server):
        failure = (await soon(outcome(upstream, wired.call()))).failure
        assert (failure.status, failure.code) == (504, "upstream_timeout")
        await server.left()


async def test_silence_between_events_is_a_timeout_after_what_came(wired: Kit) -> None:
    async with wired.open(silent_after(wired.first), idle_timeout=0.2) as (upstream, server):
        got = await soon(outcome(upstream, wired.call()))
        assert got.text == "he"
        assert (got.failure.status, got.failure.code) == (504, "upstream_idle")
        await server.left()


async def test_a_success_that_is_no_answer_is_an_error(wired: Kit) -> None:
    for garbage in (
        wired.garbage,
        fake.response(b"<html>", "text/html"),
        fake.response(b"{", "application/json"),
    ):
        async with wired.open(saying(garbage)) as (upstream, _):
            failure = (await soon(outcome(upstream, wired.call()))).failure
            assert (failure.status, failure.code) == (502, "upstream_bad_response")


async def test_bytes_that_are_no_http_are_an_error(wired: Kit) -> None:
    async with wired.open(fake.once(b"\x16\x03\x01 hello\r\n\r\n")) as (upstream, _):
        failure = (await soon(outcome(upstream, wired.call()))).failure
        assert (failure.status, failure.code) == (502, "upstream_bad_response")


@pytest.mark.parametrize("broken", ["fin", "reset"])
async def test_an_end_before_the_answer_is_an_error(wired: Kit, broken: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        getattr(peer, broken)()

    async with wired.open(script) as (upstream, server):
        failure = (await soon(outcome(upstream, wired.call()))).failure
        assert (failure.status, failure.code, failure.retry) == (502, "upstream_disconnected", "elsewhere")
        assert len(server.requests) == 1  # a new connection: it may have been taken


@pytest.mark.parametrize("end", [b"", fake.LAST_CHUNK], ids=["cut", "ended"])
async def test_an_early_end_is_an_error_after_what_came(wired: Kit, end: bytes) -> None:
    async with wired.open(fake.once(wired.first + end)) as (upstream, _):
        got = await soon(outcome(upstream, wired.call()))
        assert got.text == "he"
        assert (got.failure.status, got.failure.code) == (502, "upstream_cut")


async def test_closing_the_events_closes_the_connection(wired: Kit) -> None:
    async with wired.open(silent_after(wired.first)) as (upstream, server):
        async with aclosing(upstream.events(wired.call())) as batches:
            assert await soon(anext(batches)) == [Text("he")]
        await server.left()


async def test_cancelling_a_call_closes_the_connection(wired: Kit) -> None:
    for before in (b"", wired.first):
        async with wired.open(silent_after(before)) as (upstream, server):
            async with asyncio.TaskGroup() as group:
                task = group.create_task(outcome(upstream, wired.call()))
                await server.visited(requests=1)
                task.cancel()
            await server.left()


async def test_a_call_that_is_given_up_leaves_the_upstream_fit_for_the_next(kit: Kit) -> None:
    async with kit.open(saying(kit.first, kit.rest)) as (upstream, _):
        batches = upstream.events(kit.call())
        await soon(anext(batches))
        await soon(batches.aclose())
        assert (await soon(outcome(upstream, kit.call()))).finish.reason == "stop"


async def test_nothing_is_read_after_the_finish(wired: Kit) -> None:
    """A server that goes on after the end marker is hung up on, and what it says is not looked at."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(wired.first + wired.rest.removesuffix(fake.LAST_CHUNK))
        await peer.send(fake.chunk(b"data: garbage\n\n"))
        await peer.gone()

    async with wired.open(script) as (upstream, server):
        got = await soon(outcome(upstream, wired.call()))
        assert (got.text, got.finish.reason) == ("he llo", "stop")
        await server.left()


async def test_a_complete_answer_leaves_its_connection_for_the_next(wired: Kit) -> None:
    for answer in (wired.first + wired.rest, wired.whole):
        async with wired.open(saying(answer)) as (upstream, server):
            for _ in range(3):
                assert (await soon(outcome(upstream, wired.call()))).text == "he llo"
                assert len(server.peers) == 1


async def test_reachable_connects_and_sends_nothing(kit: Kit) -> None:
    async with kit.open(saying(b"")) as (upstream, server):
        await soon(upstream.reachable())
        await server.visited(connections=int(kit.wired))
        await server.left()
        assert server.requests == []


async def test_reachable_says_when_it_is_not(wired: Kit) -> None:
    async with wired.open(saying(b"")) as (upstream, _):
        pass
    with pytest.raises(UpstreamError) as caught:
        await soon(upstream.reachable())
    assert caught.value.status == 503
