"""Every fault that a request may ask for, as its client sees it."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from gateway.cli.commands import app as command_line
from gateway.core import modal
from gateway.simulate.faults import FAULTS
from gateway.simulate.options import Mode, Options
from gateway.simulate.pool import MAX_BOOT_FAILURES
from tests.conftest import ROOT
from tests.simulate.apps import ANSWER, held, streamed, whole
from tests.simulate.simulated import AT_ONCE, LONG, client, simulated
from tests.upstreams.fake import Peer, serving, soon

BODY = b'{"prompt": "hello"}'
SOON = 0.05  # seconds of an edge timeout that a test awaits


def asking(fault: str) -> dict[str, str]:
    return {"x-simulate": f"fault={fault}"}


@pytest.mark.parametrize("fault", [name for name, fault in FAULTS.items() if fault.answer])
async def test_a_fault_with_an_answer_gives_it_and_asks_no_app(fault: str) -> None:
    answer = FAULTS[fault].answer
    assert answer is not None
    async with (
        serving(whole()) as app,
        simulated(app.url, Options(boot=AT_ONCE)) as edge,
        client(edge) as http,
    ):
        found = await http.post("/", content=BODY, headers=asking(fault))
        assert (found.status_code, found.text) == (answer.status, answer.text)
        assert app.requests == []
        assert edge.counts.boots == (FAULTS[fault].place == "container")


async def test_a_reset_is_one() -> None:
    async with serving(whole()) as app, simulated(app.url, Options()) as edge, client(edge) as http:
        with pytest.raises(httpx.ReadError):
            await http.post("/", content=BODY, headers=asking("reset"))


async def test_a_loop_never_ends_and_starts_nothing() -> None:
    options = Options(boot=AT_ONCE, edge_timeout=SOON)
    async with serving(whole()) as app, simulated(app.url, options) as edge, client(edge) as http:
        answer = await http.post("/", content=BODY, headers=asking("loop"))
        for _ in range(3):
            assert answer.status_code == 303
            answer = await http.get(answer.headers["location"])
        assert (edge.counts.boots, app.requests) == (0, [])


@pytest.mark.parametrize(("fault", "start"), [("relative", "/?"), ("elsewhere", "https://elsewhere.")])
async def test_locations_may_be_relative_or_lead_elsewhere(fault: str, start: str) -> None:
    options = Options(boot=LONG, edge_timeout=0)
    async with serving(whole()) as app, simulated(app.url, options) as edge, client(edge) as http:
        answer = await http.post("/", content=BODY, headers=asking(fault))
        assert answer.headers["location"].startswith(start)


async def test_a_result_may_have_to_be_asked_for_again() -> None:
    release = asyncio.Event()
    options = Options(boot=AT_ONCE, edge_timeout=SOON)
    async with serving(held(release)) as app, simulated(app.url, options) as edge, client(edge) as http:
        answer = await http.post("/", content=BODY, headers=asking("repoll"))
        release.set()
        first = await http.get(answer.headers["location"])
        assert (first.status_code, first.text) == (408, modal.LOST)
        await app.left()  # so the result is there
        assert (await http.get(answer.headers["location"])).content == ANSWER


async def test_a_crash_cuts_its_stream_and_starts_the_unanswered_anew() -> None:
    turns = iter((held(asyncio.Event()), streamed(), whole()))

    async def script(peer: Peer) -> None:
        await next(turns)(peer)

    async with (
        serving(script) as app,
        simulated(app.url, Options(boot=AT_ONCE)) as edge,
        client(edge) as http,
    ):
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(http.post("/", content=BODY))
            await app.visited(requests=1)
            with pytest.raises(httpx.RemoteProtocolError):
                await http.post("/", content=BODY, headers=asking("crash"))
        assert waiting.result().content == ANSWER
        assert (edge.counts.crashes, edge.counts.boots, edge.counts.generations) == (1, 2, 3)


async def test_a_crash_before_the_answer_is_not_seen_by_a_client_of_a_web_function() -> None:
    async with (
        serving(whole()) as app,
        simulated(app.url, Options(boot=AT_ONCE)) as edge,
        client(edge) as http,
    ):
        answer = await http.post("/", content=BODY, headers=asking("crash-early"))
        assert (answer.content, edge.counts.crashes, edge.counts.boots) == (ANSWER, 1, 2)


async def test_a_crash_before_the_answer_ends_a_server_s_request() -> None:
    options = Options(Mode.server, AT_ONCE)
    async with serving(whole()) as app, simulated(app.url, options) as edge, client(edge) as http:
        await http.post("/", content=BODY)
        with pytest.raises(httpx.ReadError):
            await http.post("/", content=BODY, headers=asking("crash-early"))


@pytest.mark.parametrize("script", [streamed, whole])
async def test_a_cut_leaves_the_container_alone(script: object) -> None:
    async with (
        serving(script()) as app,  # type: ignore[operator]
        simulated(app.url, Options(boot=AT_ONCE)) as edge,
        client(edge) as http,
    ):
        with pytest.raises(httpx.RemoteProtocolError):
            await http.post("/", content=BODY, headers=asking("cut"))
        await app.left()
        assert (edge.counts.cut, edge.state["containers"]["ready"]) == (1, 1)


async def test_a_stall_is_silent_until_the_client_leaves() -> None:
    gate = asyncio.Event()
    gate.set()
    async with serving(streamed(gate)) as app, simulated(app.url, Options(boot=AT_ONCE)) as edge:
        async with (
            client(edge) as http,
            http.stream("POST", "/", content=BODY, headers=asking("stall")) as answer,
        ):
            assert (await soon(anext(answer.aiter_raw()))).startswith(b"data: 0")
            assert edge.state["inputs"]["running"] == 1
        await edge.until(lambda: edge.counts.cancelled == 1)
        await app.left()


async def test_boots_that_fail_are_tried_again_and_told_at_the_end() -> None:
    async with (
        serving(whole()) as app,
        simulated(app.url, Options(boot=AT_ONCE)) as edge,
        client(edge) as http,
    ):
        answer = await http.post("/", content=BODY, headers=asking("boot-never"))
        assert (answer.status_code, edge.counts.boot_failures) == (500, MAX_BOOT_FAILURES)
        assert answer.text.startswith(modal.PREFIX)
        answer = await http.post("/", content=BODY, headers=asking("boot-fails"))
        assert (answer.status_code, edge.counts.boot_failures) == (200, MAX_BOOT_FAILURES + 1)


async def test_an_app_that_is_not_there_is_told_in_modal_s_words() -> None:
    async with simulated("http://127.0.0.1:9", Options(boot=AT_ONCE)) as edge, client(edge) as http:
        answer = await http.post("/", content=BODY)
        assert answer.status_code == 500
        assert answer.text.startswith(modal.PREFIX)


@pytest.mark.parametrize("header", ["fault=none-such", "boot=x", "boot=-1", "boot=nan", "colour=red"])
async def test_a_header_that_is_not_understood_is_refused(header: str) -> None:
    async with serving(whole()) as app, simulated(app.url, Options()) as edge, client(edge) as http:
        answer = await http.post("/", content=BODY, headers={"x-simulate": header})
        assert (answer.status_code, edge.counts.requests) == (400, 0)
        if header.startswith("fault"):
            assert all(name in answer.text for name in FAULTS)


# --- credentials ---


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({}, modal.MISSING_CREDENTIALS),
        ({"authorization": "Basic x"}, modal.MISSING_CREDENTIALS),
        ({"modal-key": "wk-1"}, modal.INVALID_CREDENTIALS),
        ({"modal-key": "wk-1", "modal-secret": "ws-3"}, modal.INVALID_CREDENTIALS),
        ({"authorization": "Bearer wk-1.ws-3"}, modal.INVALID_CREDENTIALS),
        ({"modal-key": "wk-1", "modal-secret": "ws-2"}, ""),
        ({"authorization": "Bearer wk-1.ws-2"}, ""),
    ],
)
@pytest.mark.parametrize("path", ["/", f"/?{modal.CALL_PARAMETER}=fc-1"])
async def test_a_token_is_asked_for_before_anything_else(
    headers: dict[str, str], said: str, path: str
) -> None:
    options = Options(boot=AT_ONCE, credentials=("wk-1", "ws-2"))
    async with serving(whole()) as app, simulated(app.url, options) as edge, client(edge) as http:
        answer = await http.post(path, content=BODY, headers=headers)
        if said:
            assert (answer.status_code, answer.text, edge.counts.boots) == (401, said, 0)
        else:
            assert answer.status_code == (200 if path == "/" else 400)


# --- what is written about them ---


def test_the_page_and_the_help_name_every_fault() -> None:
    page = (ROOT / "docs" / "simulate.md").read_text(encoding="utf-8")
    missing = [name for name, fault in FAULTS.items() if f"| `{name}` | {fault.about} |" not in page]
    assert missing == []
    [command] = [each for each in command_line.registered_commands if each.callback.__name__ == "simulate"]  # type: ignore[union-attr]
    named = (command.callback.__doc__ or "").partition("Faults:")[2].replace(".", ",").split(",")  # type: ignore[union-attr]
    assert [" ".join(name.split()) for name in named if name.strip()] == list(FAULTS)
