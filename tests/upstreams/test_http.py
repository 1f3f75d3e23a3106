"""How a call travels: headers, result URLs, kept-alive connections, limits, and giving up."""

import asyncio
import json
import random
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import pytest

from gateway.core.errors import GatewayError
from gateway.core.events import Text
from gateway.upstreams.http import QUICK_HOPS, REPOLL_PAUSE
from gateway.upstreams.reading import MAX_WHOLE
from tests.serve.house import faster
from tests.upstreams import fake
from tests.upstreams.calling import ask, asked, chat, chatting, outcome, prompting
from tests.upstreams.conformance import KITS
from tests.upstreams.fake import Peer, Request, Script, soon

ANSWER = fake.response(b'{"prompt":"late"}')
STREAM = KITS["prompt"].first + KITS["prompt"].rest
CREDENTIALS = {
    "modal_key": "wk-key",
    "modal_secret": "ws-secret",
    "api_key": "sk-own",
    "headers": {"X-Team": "blue", "Accept": "text/event-stream"},
}


def each(answer: Callable[[Peer, Request], Awaitable[None]]) -> Script:
    """A script that answers every request of a connection."""

    async def script(peer: Peer) -> None:
        while request := await peer.request():
            await answer(peer, request)

    return script


# --- headers ---


async def test_what_is_sent_with_a_call() -> None:
    async with fake.serving(fake.always(ANSWER)) as server:
        await asked(server.url + "path?x=1", **CREDENTIALS)
        [request] = server.requests
    assert (request.method, request.path) == ("POST", "/path?x=1")
    host, agent = request.headers.pop("host"), request.headers.pop("user-agent")
    assert host == f"127.0.0.1:{server.port}"
    assert agent.startswith("modal-gateway/")
    assert request.headers == {
        "modal-key": "wk-key",
        "modal-secret": "ws-secret",
        "authorization": "Bearer sk-own",
        "x-team": "blue",
        "accept": "text/event-stream",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "content-length": str(len(request.body)),
        "x-request-id": "req_1",
    }


async def test_nothing_secret_is_sent_that_is_not_configured() -> None:
    async with fake.serving(fake.always(ANSWER)) as server:
        await asked(server.url, modal_key="", modal_secret="", api_key="")
        [request] = server.requests
    assert not {"modal-key", "modal-secret", "authorization", "cookie"} & set(request.headers)


async def test_cookies_are_not_kept() -> None:
    cookie = fake.response(b'{"prompt":"a"}', headers="set-cookie: a=b\r\n")
    async with fake.serving(fake.always(cookie)) as server, prompting(server.url) as upstream:
        for _ in range(2):
            await soon(outcome(upstream, ask()))
        assert ["cookie" in request.headers for request in server.requests] == [False, False]


async def test_an_answer_that_was_compressed_all_the_same_is_an_error() -> None:
    for coding in ("gzip", "zstd", "br"):
        answer = fake.response(b"\x1f\x8b", headers=f"content-encoding: {coding}\r\n")
        async with fake.serving(fake.always(answer)) as server:
            failure = (await asked(server.url)).failure
            assert (failure.status, failure.code) == (502, "upstream_bad_response")
            await server.left()


# --- result URLs ---


def redirect(location: str, status: str = "303 See Other") -> bytes:
    return f"HTTP/1.1 {status}\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n".encode()


RESULT = "/?__modal_function_call_id=fc-1"


@pytest.mark.parametrize("answer", [ANSWER, STREAM], ids=["whole", "streamed"])
@pytest.mark.parametrize("absolute", [True, False], ids=["absolute", "relative"])
async def test_a_result_is_fetched_from_where_303_says(answer: bytes, absolute: bool) -> None:
    async def reply(peer: Peer, request: Request) -> None:
        place = (server.url.rstrip("/") if absolute else "") + RESULT
        await peer.send(redirect(place) if len(server.requests) <= 5 else answer)

    async with fake.serving(each(reply)) as server:
        got = await asked(server.url, **CREDENTIALS)
        assert got.text == ("late" if answer is ANSWER else "he llo")
        assert got.finish.reason == "stop"
        first, *others = server.requests
        assert [request.method for request in server.requests] == ["POST", *["GET"] * 5]
        for request in others:
            assert request.path == RESULT
            assert request.body == b""
            assert "content-type" not in request.headers
            for name in ("modal-key", "modal-secret", "authorization", "x-team", "x-request-id"):
                assert request.headers[name] == first.headers[name]


async def test_a_result_that_is_not_there_yet_is_asked_for_again() -> None:
    missing = fake.response(b"Missing request", "text/plain", "408 Request Timeout")
    answers = [redirect(RESULT), missing, redirect(RESULT), missing, ANSWER]
    async with fake.serving(fake.always(*answers)) as server:
        assert (await asked(server.url)).text == "late"
        assert [request.method for request in server.requests] == ["POST", *["GET"] * 4]


@pytest.mark.parametrize("status", ["503 Service Unavailable", "429 Too Many Requests"])
async def test_an_edge_that_puts_a_result_off_is_asked_again_and_never_called_again(status: str) -> None:
    answers = [redirect(RESULT), fake.response(b"", "text/plain", status), ANSWER]
    async with fake.serving(fake.always(*answers)) as server:
        assert (await asked(server.url)).text == "late"
        assert [request.method for request in server.requests] == ["POST", "GET", "GET"]


async def test_a_result_that_is_an_error_of_the_app_is_told() -> None:
    error = b'{"error": {"message": "full", "code": "out_of_memory", "status": 503}}'
    answers = [redirect(RESULT), fake.response(error, "application/json", "503 Service Unavailable")]
    async with fake.serving(fake.always(*answers)) as server:
        failure = (await asked(server.url)).failure
        assert (failure.code, failure.retry) == ("out_of_memory", "never")


async def test_results_are_waited_for_until_the_deadline() -> None:
    async def reply(peer: Peer, request: Request) -> None:
        if len(server.requests) < 3:
            await peer.send(redirect(RESULT))
        else:
            await peer.gone()

    async with fake.serving(each(reply)) as server:
        failure = (await asked(server.url, first_event_timeout=0.2)).failure
        assert (failure.status, failure.code) == (504, "upstream_timeout")
        await server.left()


async def test_redirects_without_end_end_at_the_deadline_and_are_not_followed_in_a_hurry() -> None:
    async with fake.serving(fake.always(redirect(RESULT))) as server:
        failure = (await asked(server.url, first_event_timeout=0.9 * REPOLL_PAUSE)).failure
        assert (failure.status, failure.code, failure.retry) == (504, "upstream_timeout", "never")
        assert len(server.requests) == 2 + QUICK_HOPS


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1:{other}/result", "http://localhost:{own}/result", "https://127.0.0.1:{own}/result",
        "//127.0.0.1:{other}/result", "http://user@127.0.0.1:{own}/result", "ftp://127.0.0.1:{own}/",
        "http://[", "http://127.0.0.1:99999/", "javascript:x", "",
    ],
)  # fmt: skip
async def test_a_redirect_to_anywhere_else_is_an_error(location: str) -> None:
    async with fake.serving(fake.always(ANSWER)) as other:
        place = redirect(location.replace("{other}", str(other.port)))

        async def reply(peer: Peer, request: Request) -> None:
            await peer.send(place.replace(b"{own}", str(server.port).encode()))

        async with fake.serving(each(reply)) as server:
            if not location:
                place = b"HTTP/1.1 303 See Other\r\ncontent-length: 0\r\n\r\n"
            failure = (await asked(server.url, **CREDENTIALS)).failure
            assert (failure.status, failure.code) == (502, "upstream_redirect")
            assert failure.headers["x-should-retry"] == "false"
            assert "models.m.upstream.url" in failure.message
            assert "127.0.0.1" not in failure.message
            assert len(server.requests) == 1
        assert other.requests == []


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
async def test_other_redirects_are_not_followed(status: str) -> None:
    async with fake.serving(fake.always(redirect("/elsewhere", status))) as server:
        failure = (await asked(server.url)).failure
        assert (failure.status, failure.code) == (502, "upstream_redirect")
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    "late",
    [
        fake.response(b"modal-http: invalid function call", "text/plain", "404 Not Found"),
        fake.response(b"Internal Server Error", "text/plain", "500 Internal Server Error"),
        fake.response(b"<html>", "text/html"),
        KITS["prompt"].first + fake.LAST_CHUNK,
    ],
    ids=["404", "500", "html", "cut"],
)
async def test_a_call_whose_result_was_promised_is_never_sent_again(late: bytes) -> None:
    async with fake.serving(fake.always(redirect(RESULT), late)) as server:
        assert (await asked(server.url)).failure.retry == "never"


# --- connections that were kept ---


def stale(on_second: Callable[[Peer], Awaitable[None]]) -> Script:
    """The first connection answers once and does ``on_second`` when it is used again; later ones answer."""
    used: list[Peer] = []

    async def script(peer: Peer) -> None:
        used.append(peer)
        while await peer.request():
            if peer is used[0] and len(used) == 1 and served:
                await on_second(peer)
                return
            served.append(peer)
            await peer.send(ANSWER)

    served: list[Peer] = []
    return script


async def _fin(peer: Peer) -> None:
    peer.fin()


async def _reset(peer: Peer) -> None:
    peer.reset()


async def _half(peer: Peer) -> None:
    await peer.send(b"HTTP/1.1 200 OK\r\n")
    peer.fin()


@pytest.mark.parametrize("broken", [_fin, _reset], ids=["fin", "reset"])
async def test_a_call_over_a_connection_that_was_closing_is_sent_again_on_a_new_one(
    broken: Callable[[Peer], Awaitable[None]],
) -> None:
    async with fake.serving(stale(broken)) as server, prompting(server.url) as upstream:
        for _ in range(3):
            assert (await soon(outcome(upstream, ask()))).text == "late"
        _, second, again, *_ = server.requests
        assert second.body == again.body
        assert len(server.requests) == 4


async def test_a_second_failure_is_not_followed_by_a_third_attempt() -> None:
    served = 0

    async def script(peer: Peer) -> None:
        nonlocal served
        while await peer.request():
            if served:
                return
            served += 1
            await peer.send(ANSWER)

    async with fake.serving(script) as server, prompting(server.url) as upstream:
        await soon(outcome(upstream, ask()))
        failure = (await soon(outcome(upstream, ask()))).failure
        assert failure.code == "upstream_disconnected"
        assert len(server.requests) == 3


async def test_a_call_is_not_sent_again_once_an_answer_began() -> None:
    async with fake.serving(stale(_half)) as server, prompting(server.url) as upstream:
        await soon(outcome(upstream, ask()))
        failure = (await soon(outcome(upstream, ask()))).failure
        assert failure.code == "upstream_disconnected"
        assert len(server.requests) == 2


async def test_a_connection_that_closed_while_idle_is_not_used() -> None:
    async with fake.serving(fake.once(ANSWER)) as server, prompting(server.url) as upstream:
        for _ in range(3):
            assert (await soon(outcome(upstream, ask()))).text == "late"
            await server.left()
        assert len(server.requests) == 3


@pytest.mark.slow
async def test_a_call_that_was_taken_is_not_sent_again() -> None:
    async def take_it(peer: Peer) -> None:
        await asyncio.sleep(1.2)  # longer than any round trip: it was read and something ran
        peer.fin()

    async with fake.serving(stale(take_it)) as server, prompting(server.url) as upstream:
        await soon(outcome(upstream, ask()))
        assert (await soon(outcome(upstream, ask()))).failure.code == "upstream_disconnected"
        assert len(server.requests) == 2


# --- limits of time ---


async def test_comments_are_no_events() -> None:
    """Neither before the first event nor after one do they count."""
    for before in (fake.head(), KITS["prompt"].first):

        async def chatter(peer: Peer, before: bytes = before) -> None:
            await peer.request()
            await peer.send(before)
            while not peer.closed.is_set():
                await peer.send(fake.chunk(b": ping\n\n"))
                await asyncio.sleep(0.01)

        async with fake.serving(chatter) as server:
            failure = (await asked(server.url, first_event_timeout=0.2, idle_timeout=0.2)).failure
            assert failure.status == 504


async def test_headers_are_no_event() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(fake.head())
        await peer.gone()

    async with fake.serving(script) as server:
        failure = (await asked(server.url, first_event_timeout=0.2)).failure
        assert (failure.status, failure.code) == (504, "upstream_timeout")
        assert "models.m.upstream.first_event_timeout" in failure.message
        await server.left()


async def test_a_whole_answer_that_drips_is_no_event_until_it_is_complete() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9999\r\n\r\n")
        while not peer.closed.is_set():
            await peer.send(b" ")
            await asyncio.sleep(0.01)

    async with fake.serving(script) as server:
        assert (await asked(server.url, first_event_timeout=0.2)).failure.code == "upstream_timeout"


async def test_a_stream_may_last_longer_than_any_limit() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(fake.head())
        for _ in range(8):
            await asyncio.sleep(1)
            await peer.send(fake.chunk(fake.event({"prompt": "x"})))
        await peer.send(fake.chunk(fake.event("[DONE]")) + fake.LAST_CHUNK)

    async with fake.serving(script) as server:
        with faster(20):
            got = await asked(server.url, first_event_timeout=3, idle_timeout=3)
        assert got.text == "x" * 8
        assert got.finish.reason == "stop"


async def test_a_slow_consumer_is_no_silent_upstream() -> None:
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(KITS["prompt"].first)
        await soon(go.wait())
        await peer.send(KITS["prompt"].rest)

    async with (
        fake.serving(script) as server,
        prompting(server.url, idle_timeout=2) as upstream,
        aclosing(upstream.events(ask())) as batches,
    ):
        assert await soon(anext(batches)) == [Text("he")]
        with faster(20):
            await asyncio.sleep(5)  # the limit passes; nobody was reading
            asyncio.get_running_loop().call_later(0.5, go.set)
            rest = [event async for batch in batches for event in batch]
        assert rest[0] == Text(" llo")


async def test_a_loop_that_was_held_up_is_no_silent_upstream() -> None:
    """The next event is there when the limit passes; only nobody had a moment to read it."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(KITS["prompt"].first)
        await soon(heard.wait())
        await peer.send(KITS["prompt"].rest)
        hold_up(0.5)

    def hold_up(seconds: float) -> None:
        time.sleep(seconds)

    heard = asyncio.Event()
    async with (
        fake.serving(script) as server,
        prompting(server.url, idle_timeout=0.2) as upstream,
        aclosing(upstream.events(ask())) as batches,
    ):
        assert await soon(anext(batches)) == [Text("he")]
        asyncio.get_running_loop().call_soon(heard.set)
        rest = [event async for batch in batches for event in batch]
        assert rest[0] == Text(" llo")


async def test_a_consumer_that_does_not_read_holds_the_upstream_back() -> None:
    """What is sent and not asked for stays in the sockets' buffers, a few MB at most."""
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(KITS["prompt"].first)
        piece = fake.chunk(fake.event({"prompt": "x" * 60_000}))
        while not peer.closed.is_set():
            await peer.send(piece)
            sent += len(piece)

    async with (
        fake.serving(script) as server,
        prompting(server.url) as upstream,
        aclosing(upstream.events(ask())) as batches,
    ):
        await soon(anext(batches))
        await asyncio.sleep(0.3)  # enough for hundreds of MB, if nothing held them back
        assert 0 < sent < 32 << 20


async def test_a_connection_that_is_never_made_is_a_timeout() -> None:
    """A listener whose queue of connections is full answers no SYN."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        try:
            failure = (await asked(f"http://127.0.0.1:{port}/", connect_timeout=0.2)).failure
            assert (failure.status, failure.code) == (504, "upstream_connect_timeout")
            assert failure.retry == "elsewhere"
        finally:
            for one in waiting:
                one.close()


async def test_a_refused_connection_is_unavailable() -> None:
    async with fake.serving(fake.always(ANSWER)) as server:
        pass
    failure = (await asked(server.url)).failure
    assert (failure.status, failure.code, failure.retry) == (503, "upstream_unavailable", "elsewhere")
    assert str(server.port) not in failure.message


async def test_no_tls_where_tls_was_asked_for() -> None:
    async def plain(peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await peer.gone()

    async with fake.serving(plain) as server:
        url = f"https://127.0.0.1:{server.port}/"
        failure = (await asked(url)).failure
        assert (failure.status, failure.code) == (502, "upstream_tls")
        assert failure.headers["x-should-retry"] == "false"
        async with prompting(url) as upstream:
            with pytest.raises(GatewayError) as caught:
                await soon(upstream.reachable())
        assert caught.value.code == "upstream_tls"


# --- limits of size ---


async def test_a_whole_answer_is_bounded() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(fake.head("application/json"))
        while not peer.closed.is_set():
            await peer.send(fake.chunk(b" " * (1 << 20)))

    async with fake.serving(script) as server:
        failure = (await asked(server.url)).failure
        assert failure.code == "upstream_bad_response"
        assert str(MAX_WHOLE) in failure.message


async def test_an_event_is_bounded() -> None:
    for kind in ("text/event-stream", "application/x-ndjson"):

        async def script(peer: Peer, kind: str = kind) -> None:
            await peer.request()
            await peer.send(fake.head(kind))
            while not peer.closed.is_set():
                await peer.send(fake.chunk(b"x" * (1 << 20)))

        async with fake.serving(script) as server:
            assert (await asked(server.url)).failure.code == "upstream_bad_response"


async def test_the_body_of_an_error_is_bounded() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(fake.head("text/plain").replace(b"200 OK", b"500 Internal Server Error"))
        while not peer.closed.is_set():
            await peer.send(fake.chunk(b"x" * (1 << 16)))

    async with fake.serving(script) as server:
        assert (await asked(server.url)).failure.code == "upstream_error"


# --- what must not be said ---


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 422, 429, 500, 503])
async def test_secrets_that_a_server_echoes_are_not_passed_on(status: int) -> None:
    async def reply(peer: Peer, request: Request) -> None:
        echo = {"error": {"message": f"{request.headers} {request.path}", "code": "x"}}
        await peer.send(fake.response(json.dumps(echo).encode(), status=f"{status} x"))

    async with fake.serving(each(reply)) as server:
        failure = (
            await asked(server.url + "?token=query", **{**CREDENTIALS, "headers": {"X": "blue"}})
        ).failure
    for secret in ("wk-key", "ws-secret", "sk-own", "blue", "token=query"):
        assert secret not in failure.message


# --- giving up ---


async def test_calls_cancelled_at_any_moment_leave_nothing_behind() -> None:
    """Connecting, sending, following a redirect, waiting, streaming: each ends with a closed socket."""

    async def reply(peer: Peer, request: Request) -> None:
        if request.method == "POST" and len(server.requests) % 3 == 0:
            await peer.send(redirect(RESULT))
            return
        await asyncio.sleep(rng.random() / 200)
        await peer.send(KITS["prompt"].first)
        await asyncio.sleep(rng.random() / 200)
        await peer.send(KITS["prompt"].rest)

    rng = random.Random(1)
    async with fake.serving(each(reply)) as server, prompting(server.url) as upstream:
        before = asyncio.all_tasks()
        for _ in range(12):
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(outcome(upstream, ask())) for _ in range(25)]
                for task in tasks:
                    if rng.random() < 0.8:
                        asyncio.get_running_loop().call_later(rng.random() / 60, task.cancel)
        assert (await soon(outcome(upstream, ask()))).text == "he llo"
        ours = {task for task in asyncio.all_tasks() - before if "outcome" in repr(task)}
        assert ours == set()
        await upstream.aclose()
        await server.left()


async def test_a_call_can_be_given_up_twice() -> None:
    async with fake.serving(KITS_SILENT) as server, prompting(server.url) as upstream:
        batches = upstream.events(ask())
        assert await soon(anext(batches)) == [Text("he")]
        await batches.aclose()
        await batches.aclose()
        await server.left()


async def KITS_SILENT(peer: Peer) -> None:
    await peer.request()
    await peer.send(KITS["prompt"].first)
    await peer.gone()


async def test_the_openai_kind_goes_the_same_way() -> None:
    async with fake.serving(
        fake.always(redirect(RESULT), KITS["openai"].first + KITS["openai"].rest)
    ) as server:
        async with chatting(server.url + "v1", **CREDENTIALS) as upstream:
            assert (await soon(outcome(upstream, chat()))).text == "he llo"
        post, get = server.requests
        assert (post.path, get.path) == ("/v1/chat/completions", RESULT)
        assert post.headers["authorization"] == get.headers["authorization"] == "Bearer sk-own"
