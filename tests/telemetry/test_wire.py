"""What `show_wire` shows: prompts, calls and raw answers, whole lines, bounded, and no secret."""

import pytest

from gateway.settings import settings_from
from gateway.upstreams.wire import MAX_CALL, MAX_LINE, TAP, Tap
from tests.serve.house import Visit, house
from tests.serve.test_surface import call
from tests.telemetry.test_trace import ASK

SECRETS = {"api_key": "sk-upstream-secret", "headers": {"x-token": "header-secret"}}
SHOW = {"server": {"show_wire": True}}


async def answer(visit: Visit) -> None:
    await visit.start_stream()
    for cut in (b'data: {"prompt": "sk-upstr', b"eam-secret \xe2\x9c", b'\x93"}\n\n'):
        await visit.chunk(cut)
    await visit.event({"prompt": "\x1b[2J", "finish_reason": "stop"})
    await visit.event("[DONE]")
    await visit.end_stream()


async def test_a_call_and_its_answer_are_shown_without_secrets(capfd: pytest.CaptureFixture[str]) -> None:
    async with house(answer, SHOW, upstream={**SECRETS, "whole": "stream"}) as at:
        sent = {**ASK, "messages": [{"role": "user", "content": "one\ntwo header-secret"}]}
        response = await call(at, "POST", "/v1/chat/completions", json=sent)
        assert response.json()["choices"][0]["message"]["content"] == "sk-upstream-secret ✓\x1b[2J"
    shown = capfd.readouterr().err.splitlines()
    assert all(line.startswith("req_") and " m " in line for line in shown)
    lines = [line.split(" ", 2)[2] for line in shown]
    assert lines[:2] == ["| one", "| two ***"]
    assert lines[2].startswith('> {"prompt":"one\\ntwo ***"')
    assert lines[3] == "< 200 text/event-stream"
    assert '< data: {"prompt": "*** ✓"}' in lines
    assert "< data: [DONE]" in lines
    assert any(line.startswith("= Finish(") for line in lines)
    assert "secret" not in "\n".join(shown) and all(line.isprintable() for line in shown)


async def test_a_refusal_is_shown_too(capfd: pytest.CaptureFixture[str]) -> None:
    async def refuse(visit: Visit) -> None:
        await visit.answer({"error": "no room"}, status="500 Internal Server Error")

    async with house(refuse, SHOW) as at:
        await call(at, "POST", "/v1/chat/completions", json=ASK)
    shown = capfd.readouterr().err
    assert "< 500 application/json" in shown and '< {"error": "no room"}' in shown


async def test_nothing_is_shown_unless_that_was_asked_for(capfd: pytest.CaptureFixture[str]) -> None:
    async with house(answer) as at:
        await call(at, "POST", "/v1/chat/completions", json=ASK)
    assert capfd.readouterr().err == ""
    assert TAP.get() is None


def test_the_environment_switches_it_on() -> None:
    data = {"models": {"m": {"upstream": {"kind": "demo"}}}}
    assert settings_from(data, {"GATEWAY_SHOW_WIRE": "1"}).server.show_wire
    assert not settings_from(data, {}).server.show_wire
    assert not settings_from(data, {"GATEWAY_SHOW_WIRE": ""}).server.show_wire


def test_lines_and_calls_are_bounded() -> None:
    said: list[str] = []
    tap = Tap("m", (), said.append)
    tap.take(b"x" * 100_000)
    assert said == []  # the line has no end yet
    tap.take(b"")
    assert len(said) == 1 and said[0].endswith(f"... {100_000 - MAX_LINE} more characters")
    for _ in range(1000):
        tap.take(b"y" * 2000 + b"\n")
    assert sum(map(len, said)) < MAX_CALL * 1.1
    assert said[-1] == "m < the rest of this call is not shown"


@pytest.mark.parametrize("at", range(1, 30))
def test_no_cut_shows_a_secret(at: int) -> None:
    said: list[str] = []
    tap = Tap("m", ("sk-secret",), said.append)
    whole = b"before sk-secret after\nnext\n"
    tap.take(whole[:at])
    tap.take(whole[at:])
    tap.take(b"")
    assert said == ["m < before *** after", "m < next"]
