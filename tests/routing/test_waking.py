"""Waking without a call: what counts as a container, before every fault of the simulated edge and any app."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.core import modal
from gateway.core.errors import GatewayError, NoContainer
from gateway.routing.coldstart import ColdStart
from gateway.routing.lifecycle import Lifecycle
from gateway.routing.target import Target
from gateway.routing.visit import Bounds
from gateway.routing.waking import Waking
from gateway.simulate.faults import FAULTS
from gateway.simulate.options import Mode, Options
from gateway.upstreams.kinds import build
from gateway.upstreams.prompt import PromptConfig
from tests.routing.test_slots import turns
from tests.serve.house import Container, Scripted, Visit, container, soon
from tests.simulate.simulated import AT_ONCE, LONG, simulated

BOUNDS = Bounds(8, 8, 60.0, first_event=60.0, poll=0.001)
BRIEF = Bounds(8, 8, 60.0, first_event=0.5, poll=0.001)  # within which a busy machine asks once, too
PATIENTLY = {"not-ready", "boot-never"}  # what is asked again until the time is over


@asynccontextmanager
async def before(url: str, bounds: Bounds = BOUNDS, **headers: str) -> AsyncIterator[Target]:
    inner = build("m", PromptConfig(url=url, headers=headers), model="m", at="models.m.upstream")
    upstream = Target(inner, bounds, time.monotonic)
    try:
        yield upstream
    finally:
        await upstream.aclose()


async def greet(visit: Visit) -> None:
    await visit.answer({"detail": "Method Not Allowed"}, status="405 Method Not Allowed")


async def woken(fault: str, options: Options) -> tuple[GatewayError | None, str]:
    """How a waking before an edge with this fault ends, and the state that is shown then."""
    bounds = BRIEF if fault in PATIENTLY else BOUNDS
    async with (
        container(greet) as app,
        simulated(f"http://127.0.0.1:{app.port}/", options) as edge,
        before(edge.url, bounds, **{"x-simulate": f"fault={fault}"}) as upstream,
    ):
        [error] = await soon(asyncio.gather(upstream.wake(), return_exceptions=True))
        assert error is None or isinstance(error, GatewayError)
        return error, upstream.state()


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("fault", [name for name, fault in FAULTS.items() if fault.place == "edge"])
async def test_what_an_edge_says_is_no_container(fault: str, mode: Mode) -> None:
    error, state = await woken(fault, Options(mode, AT_ONCE))
    assert error is not None
    assert state == {"stopped": "stopped", "disabled": "stopped", "not-ready": "booting"}.get(
        fault, "unknown"
    )


@pytest.mark.parametrize("fault", ["timed-out", "terminated", "lost-track", "raised", "boot-never"])
async def test_what_an_edge_says_of_a_container_that_died_is_none(fault: str) -> None:
    error, state = await woken(fault, Options(boot=AT_ONCE))
    assert error is not None
    assert state != "warm"


async def test_a_server_whose_container_never_boots_is_not_warm() -> None:
    error, state = await woken("boot-never", Options(Mode.server, AT_ONCE))
    assert isinstance(error, NoContainer)
    assert state == "booting"


async def test_a_promise_at_another_host_is_no_container() -> None:
    error, state = await woken("elsewhere", Options(boot=LONG, edge_timeout=0.01))
    assert error is not None
    assert (error.code, state) == ("upstream_redirect", "unknown")


@pytest.mark.parametrize("fault", ["error", "repoll", "relative"])
async def test_what_an_app_says_through_the_edge_is_a_container(fault: str) -> None:
    boot, timeout = (AT_ONCE, 150.0) if fault == "error" else (Options().boot, 0.01)
    options = Options(boot=boot if fault == "error" else type(boot)(0.05, 0.05), edge_timeout=timeout)
    assert await woken(fault, options) == (None, "warm")


async def answered(
    status: str, body: bytes, kind: str = "text/plain", location: str = ""
) -> tuple[GatewayError | None, str, Container]:
    """How a waking ends where this is all there is."""

    async def script(visit: Visit) -> None:
        head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n"
        head += f"location: {location}\r\n" if location else ""
        await visit.send(head.encode() + b"\r\n" + body)

    async with container(script) as behind, before(f"http://127.0.0.1:{behind.port}/") as upstream:
        [error] = await soon(asyncio.gather(upstream.wake(), return_exceptions=True))
        assert error is None or isinstance(error, GatewayError)
        return error, upstream.state(), behind


@pytest.mark.parametrize(
    ("status", "body", "location"),
    [
        ("200 OK", b"<html>hello</html>", ""),
        ("200 OK", b"", ""),
        ("307 Temporary Redirect", b"", "/docs"),
        ("400 Bad Request", b"no prompt", ""),
        ("404 Not Found", b'{"detail":"Not Found"}', ""),
        ("404 Not Found", b"<html>404</html>", ""),
        ("405 Method Not Allowed", b"Method Not Allowed", ""),
        ("422 Unprocessable", b'{"detail":[{"type":"missing","loc":["body"]}]}', ""),
        ("429 Too Many", b'{"error":{"message":"full","code":"busy"}}', ""),
        ("500 Error", b"Internal Server Error", ""),
        ("503 Loading", b'{"error":{"message":"soon","code":"loading"}}', ""),
    ],
)
async def test_whatever_an_app_says_is_a_container(status: str, body: bytes, location: str) -> None:
    error, state, behind = await answered(status, body, location=location)
    assert (error, state) == (None, "warm")
    assert [visit.method for visit in behind.visits] == ["GET"]


@pytest.mark.parametrize(
    ("status", "body", "location", "code"),
    [
        ("200 OK", modal.STOPPED.encode(), "", "upstream_stopped"),
        ("200 OK", b"modal-http: something new", "", "upstream_error"),
        ("302 Found", b"", "https://login.example/", "upstream_redirect"),
        ("302 Found", b"", "", "upstream_redirect"),
        ("401 Unauthorized", b"", "", "upstream_auth"),
        ("403 Forbidden", b'{"detail":"no"}', "", "upstream_auth"),
        ("404 Not Found", b"modal-http: something new", "", "upstream_not_found"),
        ("408 Request Timeout", b"", "", "upstream_unavailable"),
        ("429 Too Many", b"", "", "upstream_rate_limited"),
        ("502 Bad Gateway", b"<html>502</html>", "", "upstream_error"),
        ("504 Gateway Timeout", b"", "", "upstream_timeout"),
    ],
)
async def test_what_no_app_says_is_no_container(status: str, body: bytes, location: str, code: str) -> None:
    error, state, _ = await answered(status, body, location=location)
    assert error is not None
    assert error.code == code
    assert state == ("stopped" if code == "upstream_stopped" else "unknown")


class Gated(Scripted):
    """Its first waking ends at once, as another begins; that one ends at ``go``."""

    def __init__(self) -> None:
        super().__init__("a")
        self.go = asyncio.Event()
        self.next: list[asyncio.Task[None]] = []

    async def wake(self) -> None:
        self.woken += 1
        if self.woken == 1:
            asyncio.get_running_loop().call_soon(lambda: self.next.append(self.waking.begin()))
        else:
            await self.go.wait()

    waking: Waking


async def test_the_end_of_one_waking_tells_nothing_of_the_next() -> None:
    inner = Gated()
    life = Lifecycle(60.0, sleeps=True)
    inner.waking = Waking(inner, life, ColdStart(1.0), 60.0, time.monotonic)
    first = inner.waking.begin()
    await soon(first)
    async with asyncio.TaskGroup() as group:
        looking = group.create_task(inner.waking.look())
        await turns()
        assert not looking.done()
        inner.go.set()
        assert await soon(looking)
    assert inner.next
    await soon(inner.next[0])
