"""Identity providers as an operator meets them: what a file may say, every route, several processes."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.sources import callers
from gateway.settings import ConfigError, settings_from
from tests.cli.process import BOUND
from tests.cli.test_reload import until
from tests.cli.test_serve import serving
from tests.conftest import ROOT
from tests.keys import test_matrix as matrix
from tests.keys.gate import OWN
from tests.keys.idp import Idp, provider

ENTRY = {"issuer": "https://login.example.com/", "audience": "gateway"}
MODELS = {"m": {"upstream": {"kind": "demo"}}}


def config(*entries: dict[str, Any], **top: Any) -> dict[str, Any]:
    auth = {"mode": "keys", "oidc": list(entries), **top.pop("auth", {})}
    return {"auth": auth, "store": {"url": None}, "models": MODELS, **top}


# --- the file ---


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"issuer": "http://login.example.com"}, "auth.oidc[0].issuer: must begin with https://"),
        ({"issuer": "login.example.com"}, "auth.oidc[0].issuer: must be a URL"),
        ({"issuer": "https://me:x@login.example.com"}, "auth.oidc[0].issuer: must be a URL"),
        ({"issuer": "https://login.example.com?a=b"}, "auth.oidc[0].issuer: must have no query"),
        ({"issuer": "https://login.example.com#a"}, "auth.oidc[0].issuer: must have no fragment"),
        ({"issuer": "https://[x"}, "auth.oidc[0].issuer: not a URL"),
        ({"jwks_url": "ftp://login.example.com/"}, "auth.oidc[0].jwks_url: must begin with https://"),
        ({"audience": []}, "auth.oidc[0].audience: "),
        ({"audience": ""}, "auth.oidc[0].audience[0]: "),
        ({"algorithms": ["HS256"]}, "auth.oidc[0].algorithms[0]: "),
        ({"algorithms": ["none"]}, "auth.oidc[0].algorithms[0]: "),
        ({"algorithms": []}, "auth.oidc[0].algorithms: "),
        ({"requird": {}}, "auth.oidc[0].requird: unknown key; did you mean required?"),
        ({"required": {"a": []}}, "auth.oidc[0].required.a: "),
        ({"teams": {"a": "b"}}, "auth.oidc[0]: teams needs team_claim"),
        ({"models": ["a"], "models_claim": "b"}, "auth.oidc[0]: has both models and models_claim"),
        ({"leeway": 301}, "auth.oidc[0].leeway: "),
        (
            {"team": "salse"},
            "auth.oidc: https://login.example.com/ is of a team salse that teams has not; did you",
        ),
        (
            {"team_claim": "g", "teams": {"x": "salse"}},
            "auth.oidc: https://login.example.com/ is of a team salse",
        ),
    ],
)
def test_a_mistake_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        settings_from(config({**ENTRY, **fields}, teams={"sales": {}}), {})
    assert str(refused.value).startswith(message)


def test_an_issuer_is_there_once_and_needs_a_door() -> None:
    with pytest.raises(
        ConfigError, match=r"auth\.oidc: the issuer https://login\.example\.com/ is there twice"
    ):
        settings_from(config(ENTRY, ENTRY), {})
    with pytest.raises(ConfigError, match="auth: oidc needs mode: keys"):
        settings_from(config(ENTRY, auth={"mode": "none"}), {})


def test_one_value_is_short_for_a_list() -> None:
    [made] = settings_from(config({**ENTRY, "required": {"a": "b", "c": True, "d": [1, "x"]}}), {}).auth.oidc
    assert made.audience == ("gateway",)
    assert made.required == {"a": ("b",), "c": (True,), "d": (1, "x")}
    assert callers(settings_from(config(ENTRY), {}).auth) == ["tokens of https://login.example.com/"]


def test_without_pyjwt_the_extra_is_named_and_only_where_it_is_needed() -> None:
    script = f"""
import sys
sys.modules["jwt"] = None
from gateway.settings import ConfigError, settings_from
settings_from({config()!r}, {{}})
try:
    settings_from({config(ENTRY)!r}, {{}})
except ConfigError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True, text=True, timeout=BOUND
    )
    assert done.stdout == "auth.oidc: tokens need PyJWT: pip install 'modal-gateway[oidc]'\n"


# --- every route ---


async def test_a_token_opens_each_route_of_keys_and_a_wrong_one_none(tmp_path: Path) -> None:
    async with provider() as idp:
        auth = {
            "keys": [{"name": "own", "key": OWN}],
            "oidc": [idp.entry(), idp.entry(issuer="http://127.0.0.1:1")],
        }
        async with matrix.standing(tmp_path, auth=auth) as here:
            await here.ask(idp.token())
            wrong = [
                idp.token(exp=1),
                idp.token(aud="other"),
                idp.token("rs-other"),
                idp.token() + "x",
                "eyJ.a.b",
            ]
            wrong += ["x" * 9000, idp.token(iss="https://nobody.example")]
            for (method, path), route in matrix.ROUTES.items():
                if route.guard not in ("key", "admin"):
                    continue
                told = set()
                for token in [*wrong, *([idp.token()] if route.guard == "admin" else [])]:
                    answer = await matrix.call(here.port, method, path, matrix.bearer(token), route.body)
                    told.add(matrix.refused(answer, path))
                assert len(told) == 1, path
                if route.guard == "key":
                    head = matrix.bearer(idp.token())
                    answer = await matrix.call(here.port, method, path, head, route.body)
                    assert answer.status not in (401, 403, 405, 500), (path, answer)
                    away = matrix.bearer(idp.token(iss="http://127.0.0.1:1"))
                    assert (await matrix.call(here.port, method, path, away, route.body)).status == 503


# --- several processes ---


@contextmanager
def beside() -> Iterator[Idp]:
    """A provider in a thread of its own, since a process is waited for in this one."""
    made: list[Idp] = []
    ready, over = threading.Event(), threading.Event()

    async def stand() -> None:
        async with provider() as idp:
            made.append(idp)
            ready.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=asyncio.run, args=(stand(),))
    thread.start()
    try:
        assert ready.wait(BOUND)
        yield made[0]
    finally:
        over.set()
        thread.join(BOUND)


def test_each_of_several_workers_takes_tokens_and_another_configuration(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    with beside() as idp:
        file.write_text(json.dumps(config(idp.entry())))
        with serving(tmp_path, "--config", "gateway.yaml", "--workers", "2") as gateway:
            assert f"tokens of {idp.issuer}" in gateway.shown

            def statuses() -> set[int]:
                found = set()
                for _ in range(12):  # each on a connection of its own, which either worker takes
                    with gateway.client(authorization=f"Bearer {idp.token()}") as client:
                        found.add(client.get("/v1/models").status_code)
                return found

            assert statuses() == {200}
            file.write_text(json.dumps(config(idp.entry(required={"group": "staff"}))))
            gateway.process.send_signal(signal.SIGHUP)
            until(lambda: statuses() == {401})
            code, _, _ = gateway.stop()
    assert code == 0
