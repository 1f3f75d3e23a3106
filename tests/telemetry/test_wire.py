"""What `show_wire` shows: prompts, calls and raw answers, whole lines, bounded, and no secret."""

from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from pydantic import SecretStr

from gateway.core.call import PromptCall
from gateway.fleet import Fleet
from gateway.settings import Admin, settings_from
from gateway.upstreams.wire import MAX_CALL, MAX_LINE, TAP, Tap, secrets_in
from tests.serve.house import Visit, house
from tests.serve.test_surface import call
from tests.telemetry.test_trace import ASK

SECRETS = {"api_key": "sk-upstream-secret", "headers": {"x-token": "header-secret"}}
SHOW = {"server": {"show_wire": True}}
EVERYWHERE: dict[str, Any] = {
    "server": {"show_wire": True},
    "auth": {"keys": [{"name": "ann", "key": "sk-callers"}]},
    "admin": {"key": 'the "admin"\\'},
    "store": {"url": "postgresql://me:p%40ss-of-store@127.0.0.1/keys?sslpassword=of-a-file"},
    "redis": {"url": "redis://:pass-of-redis@127.0.0.1/0"},
    "models": {
        "m": {"upstream": {"kind": "demo"}},
        "n": {"upstreams": [
            {"url": "http://127.0.0.1", "modal_key": "wk-others", "modal_secret": "ws-others"},
            {"url": "http://127.0.0.1", "headers": {"authorization": "Bearer of-others", "x-short": "abc"}},
        ]},
    },
}  # fmt: skip


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


def test_every_secret_of_a_configuration_is_known_and_nothing_else() -> None:
    found = secrets_in(settings_from(EVERYWHERE, {}))
    store, redis = EVERYWHERE["store"]["url"], EVERYWHERE["redis"]["url"]
    passwords = {"p%40ss-of-store", "p@ss-of-store", "of-a-file", "pass-of-redis"}
    others = {"wk-others", "ws-others", "Bearer of-others", "of-others"}
    admin = {'the "admin"\\', r"the \"admin\"\\"}  # the second as it stands in a body
    assert found == {"sk-callers", store, redis} | passwords | others | admin


async def test_what_is_secret_elsewhere_is_blanked_too(capfd: pytest.CaptureFixture[str]) -> None:
    settings = settings_from(EVERYWHERE, {})
    fleet = Fleet(Path(), monotonic, show_wire=True)
    fleet.adopt(fleet.plan(settings))
    [target] = [target for target in fleet.targets if target.name == "m"]
    said = sorted(secrets_in(settings))
    async for _ in target.send(PromptCall("\n".join(said), {})):
        pass
    later = settings.model_copy(update={"admin": Admin(key=SecretStr("of-tomorrow"))})
    fleet.adopt(fleet.plan(later))
    async for _ in target.send(PromptCall("of-tomorrow sk-callers", {})):
        pass
    async for _ in target.send(PromptCall(settings.admin.key.get_secret_value(), {})):
        pass  # a restart would change it, a reload does not
    shown = capfd.readouterr().err
    assert "m | *** ***" in shown
    assert [each for each in (*said, "of-tomorrow") if each in shown] == []


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
    tap = Tap("m", frozenset(), said.append)
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
    tap = Tap("m", frozenset({"sk-secret"}), said.append)
    whole = b"before sk-secret after\nnext\n"
    tap.take(whole[:at])
    tap.take(whole[at:])
    tap.take(b"")
    assert said == ["m < before *** after", "m < next"]
