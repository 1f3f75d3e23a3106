"""Before the first answer conformance waits for a container, and says so; afterwards it does not."""

from __future__ import annotations

import asyncio
import re

import pytest

from gateway.cli.commands import run
from gateway.conformance.client import NoAnswer, Waiting
from gateway.conformance.fit import Credentials
from gateway.conformance.run import examine
from gateway.conformance.verdict import Result
from gateway.simulate.options import Boot, Mode, Options
from tests.conformance.faulty import faulty
from tests.serve.house import BOUND, listening, soon
from tests.simulate.apps import held
from tests.simulate.simulated import AT_ONCE, LONG, simulated
from tests.upstreams.fake import Peer, response, serving

pytestmark = pytest.mark.slow

PAUSE = 0.02  # seconds


async def test_a_sleeping_server_is_asked_until_it_is_awake() -> None:
    told: list[str] = []
    options = Options(Mode.server, Boot(0.3, 0.3))
    async with listening(faulty("none")) as port, simulated(f"http://127.0.0.1:{port}", options) as edge:
        report = await soon(examine(edge.url, Credentials(), BOUND, Waiting(BOUND, told.append, pause=PAUSE)))
        assert report.good
        awaited, answered = told
        assert awaited == "no container is ready; waiting for one, at most 10 s"
        assert re.fullmatch(r"a container answered after \d s", answered)
        refused = edge.counts.refused["503"]
        assert refused > 1
        assert report.requests <= 40  # those that were refused are not among them


async def test_a_web_function_that_boots_for_longer_than_an_answer_may_take_is_awaited() -> None:
    told: list[str] = []
    options = Options(boot=Boot(1.5, 1.5), edge_timeout=0.2)
    async with listening(faulty("none")) as port, simulated(f"http://127.0.0.1:{port}", options) as edge:
        waiting = Waiting(BOUND, told.append, silence=0.3)
        report = await soon(examine(edge.url, Credentials(), 1.0, waiting))
        assert report.good, report.verdicts
        assert edge.counts.boots == 1
        assert edge.counts.redirects > 1
        [line] = told
        assert line.startswith("no answer yet; a container may be starting. Waiting, at most 11 s")


async def test_there_is_an_end_to_the_waiting() -> None:
    options = Options(Mode.server, LONG)
    async with serving(held(asyncio.Event())) as app, simulated(app.url, options) as edge:
        with pytest.raises(NoAnswer, match=r"no container was ready within 0\.1 s \(--wait allows more\)"):
            await soon(examine(edge.url, Credentials(), BOUND, Waiting(0.1, pause=PAUSE)))


async def test_an_app_that_says_why_it_is_not_available_is_not_awaited() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        body = b'{"error": {"message": "the engine is dead", "code": "engine_dead", "status": 503}}'
        await peer.send(response(body, status="503 Service Unavailable"))
        await peer.gone()

    told: list[str] = []
    async with serving(script) as app:
        report = await soon(examine(app.url, Credentials(), BOUND, Waiting(BOUND, told.append)))
        assert report.verdicts["whole"].result is Result.WRONG
        assert "the engine is dead" in report.verdicts["whole"].why
        assert (told, len(app.requests)) == ([], 1)


async def test_who_is_not_let_in_is_told_how_to_give_a_token() -> None:
    options = Options(boot=AT_ONCE, credentials=("wk-1", "ws-2"))
    async with listening(faulty("none")) as port, simulated(f"http://127.0.0.1:{port}", options) as edge:
        report = await soon(examine(edge.url, Credentials(), BOUND))
        for part in ("status 401", "MODAL_KEY", "--modal-secret", "--header"):
            assert part in report.verdicts["whole"].why
        assert edge.counts.boots == 0
        let_in = Credentials("wk-1", "ws-2")
        assert (await soon(examine(edge.url, let_in, BOUND))).good


async def test_the_terminal_shows_what_is_awaited(capsys: pytest.CaptureFixture[str]) -> None:
    options = Options(Mode.server, AT_ONCE)
    async with listening(faulty("none")) as port, simulated(f"http://127.0.0.1:{port}", options) as edge:
        code = await asyncio.to_thread(run, ["conformance", edge.url, "--wait", "30"])
    said = capsys.readouterr()
    assert code == 0, said.out
    awaited, answered = said.err.splitlines()
    assert awaited == "no container is ready; waiting for one, at most 30 s"
    assert re.fullmatch(r"a container answered after [1-9]\d? s", answered)
