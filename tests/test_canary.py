"""No secret gets out: not in an answer, a log, a metric, the admin API, the ledger, a `repr` or a command.

Rule: every place of a configuration that holds a secret has one that can be recognised; every kind of failure
is caused, by upstreams that repeat what they were sent; then all output is searched.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import re
import sqlite3
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text

from gateway.app import Site, application
from gateway.cli.commands import run
from gateway.dispatch import Dispatch
from gateway.keys.key import digest_of, new_secret
from gateway.settings import ConfigError, settings_from
from gateway.store.engine import open_engine, writing
from gateway.world import World
from tests.keys.gate import kept_in
from tests.keys.test_matrix import Answer, bearer, call
from tests.serve.house import Visit, container, listening
from tests.serve.test_error_table import ROWS, Row

SECRETS = {
    "client": "sk-canary-client-key",
    "admin": "canary-admin-key",
    "modal_key": "wk-canary-modal-key",
    "modal_secret": "ws-canary-modal-secret",
    "api_key": "sk-canary-upstream-key",
    "header": "canary-header-value",
    "store": "canary-password",  # of tests/services.py
    "redis": "canary-redis-password",
}
PROMPT, SAID = "canary-of-the-prompt", "canary-of-the-answer"
CHAT = {"messages": [{"role": "user", "content": PROMPT}], "user": "somebody"}


def config(port: int, store: str, **more: Any) -> dict[str, Any]:
    url = f"http://127.0.0.1:{port}/"
    prompt = {
        "url": url,
        "modal_key": SECRETS["modal_key"],
        "modal_secret": SECRETS["modal_secret"],
        "headers": {"x-token": SECRETS["header"]},
        "first_event_timeout": 1,
        "queue_timeout": 1,
    }
    openai = {"kind": "openai", "url": url, "model": "x", "api_key": SECRETS["api_key"]}
    return {
        "auth": {"keys": [{"name": "own", "key": SECRETS["client"]}]},
        "admin": {"key": SECRETS["admin"]},
        "store": {"url": store, "revocation_poll": 0.05, **more},
        "redis": {"url": f"redis://:{SECRETS['redis']}@127.0.0.1:1/0"},
        "models": {
            "m": {"upstream": prompt, "template": "plain", "limits": {"requests_per_minute": 10_000}},
            "o": {"upstream": {**openai, "first_event_timeout": 1}},
        },
    }


class Echo:
    """A container that fails as a row says, and says what it was sent beside it."""

    row: Row | None = None

    async def __call__(self, visit: Visit) -> None:
        row, sent = self.row, f" {visit.headers} {visit.body.decode()}"
        if row is None:
            await self._well(visit)
            return
        body = (
            row.body + sent.encode()
            if isinstance(row.body, bytes)
            else json.dumps(_with(row.body, sent)).encode()
        )
        lines = {"content-type": "application/json", **row.headers, "content-length": str(len(body))}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        await visit.send(f"HTTP/1.1 {row.status}\r\n{head}\r\n".encode() + body)

    async def _well(self, visit: Visit) -> None:
        if "/chat/completions" in visit.path:
            choice = {"index": 0, "message": {"role": "assistant", "content": SAID}, "finish_reason": "stop"}
            await visit.answer({"choices": [choice]})
        elif visit.json.get("stream"):
            await visit.say(SAID)
        else:
            await visit.answer({"prompt": SAID})


def _with(body: Mapping[str, Any], sent: str) -> dict[str, Any]:
    """The same failure with something added to each text of it."""
    return {
        name: _with(value, sent)
        if isinstance(value, Mapping)
        else value + sent
        if isinstance(value, str)
        else value
        for name, value in body.items()
        if name != "object"
    } | ({"object": body["object"]} if "object" in body else {})


def wrong(texts: Mapping[str, str], secrets: Mapping[str, str]) -> list[str]:
    """Which secret is where."""
    return [
        f"{name} in {place}: ...{text[max(0, text.find(secret) - 60) : text.find(secret) + len(secret)]}"
        for place, text in texts.items()
        for name, secret in secrets.items()
        if secret in text
    ]


BAD_BODIES = [b"{", b"[]", b'{"messages": 1}', b'{"model": "m", "messages": [], "stop": {}}', b"\xff" * 100]
BAD_KEYS = [SECRETS["client"] + "x", SECRETS["admin"], "x' OR 1=1", digest_of(SECRETS["client"]).hex()]


async def post(port: int, path: str, key: str, body: Mapping[str, Any]) -> Answer:
    return await call(port, "POST", path, bearer(key), body)


async def failures(port: int, echo: Echo) -> AsyncIterator[tuple[str, Answer]]:
    """Every way to fail, and what a client is told of it."""
    own = SECRETS["client"]
    for row in ROWS:
        echo.row = row
        for model, stream in (("m", False), ("m", True), ("o", False)):
            body = {**CHAT, "model": model, "stream": stream}
            yield row.name, await post(port, "/v1/chat/completions", own, body)
    echo.row = None
    for key in BAD_KEYS:
        for path in ("/v1/chat/completions", "/v1/messages", "/admin/keys"):
            yield "bad key", await post(port, path, key, {**CHAT, "model": "m"})
    for path in ("/v1/embeddings", "/v1/responses", "/v1/messages", "/v1/completions", "/v1/prompt/m"):
        yield path, await post(port, path, own, {"model": "m", "input": [PROMPT], "nonsense": PROMPT})
    for body in ({"model": "no-such-model", **CHAT}, {"model": "m", "messages": PROMPT * 3, "n": "x"}):
        yield "bad field", await post(port, "/v1/chat/completions", own, body)


async def logged_in(port: int) -> str:
    """The secret part of a session of the console, which was used and was refused."""
    answer = await call(port, "POST", "/console/session", b"", {"key": SECRETS["admin"]})
    [token] = re.findall(rb"gateway_session=([0-9a-f.]+)", answer.head)
    cookie = b"cookie: gateway_session=%b\r\n" % token
    for site, status in ((b"same-origin", 200), (b"cross-site", 403)):
        head = cookie + b"sec-fetch-site: %b\r\n" % site
        used = await call(port, "POST", "/v1/chat/completions", head, {**CHAT, "model": "m"})
        assert used.status == status and token not in used.head + used.body
    return str(token.rpartition(b".")[2].decode())


async def inside(port: int) -> AsyncIterator[tuple[str, Answer]]:
    """What the operator can read."""
    admin = bearer(SECRETS["admin"])
    looks = ("upstreams", "keys", "usage", "usage/rows", "keys/config:own", "keys/nobody")
    for path in (*looks, "overview", "budgets", "requests"):
        yield path, await call(port, "GET", f"/admin/{path}", admin, None)
    for path in ("/metrics", "/openapi.json", "/docs", "/v1/models", "/health/ready"):
        yield path, await call(port, "GET", path, bearer(SECRETS["client"]), None)


def objects() -> Iterator[tuple[str, str]]:
    """What each object of ours shows of itself."""
    for each in gc.get_objects():
        kind = type(each)
        if str(kind.__module__).startswith("gateway."):
            yield f"repr of {kind.__qualname__}", repr(each)


@asynccontextmanager
async def house(
    folder: Path, store: str, world: World | None = None, **more: Any
) -> AsyncIterator[tuple[int, Echo]]:
    echo = Echo()
    async with container(echo) as behind:
        settings = settings_from(config(behind.port, store, **more), {}, folder)
        app = application(settings, Site(folder, store=True), *([world] if world else []))
        assert isinstance(app, Dispatch)
        async with listening(app) as port:
            yield port, echo


async def test_no_failure_tells_a_secret(
    tmp_path: Path, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    told: dict[str, str] = {}
    async with house(tmp_path, database_url) as (port, echo):
        made = await post(port, "/admin/keys", SECRETS["admin"], {"name": "ann"})
        secrets = {**SECRETS, "made": json.loads(made.body)["key"], "session": await logged_in(port)}
        async for name, answer in failures(port, echo):
            assert answer.status >= 400 or answer.body.count(b'"error"'), (name, answer)
            told[f"answer to {name} {len(told)}"] = answer.body.decode() + answer.head.decode()
        for key in (SECRETS["client"], secrets["made"]):
            for model in ("m", "o"):
                answer = await post(port, "/v1/chat/completions", key, {**CHAT, "model": model})
                assert SAID.encode() in answer.body
        shown = dict(objects())
        seen = {name: answer.body.decode() async for name, answer in inside(port)}
    seen["log"] = caplog.text
    seen["files"] = kept_in(tmp_path).decode("latin-1")
    assert len(shown) > 20 and "repr of Settings" in shown and "repr of Place" in shown
    assert wrong({**told, **seen, **shown}, secrets) == []
    assert wrong(seen, {"prompt": PROMPT, "answer": SAID, "digest": digest_of(secrets["made"]).hex()}) == []


async def test_a_broken_database_tells_no_secret(
    tmp_path: Path, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    own, told = SECRETS["client"], {}
    async with house(tmp_path, database_url) as (port, _):
        with closing_of(database_url, tmp_path) as engine:
            for table in ("keys", "requests"):
                with writing(engine) as connection:
                    connection.execute(text(f"ALTER TABLE {table} RENAME TO no_{table}"))
            told["ask"] = await post(port, "/v1/chat/completions", own, {**CHAT, "model": "m"})
            told["unknown"] = await post(port, "/v1/chat/completions", new_secret(), {**CHAT, "model": "m"})
            told["create"] = await post(port, "/admin/keys", SECRETS["admin"], {"name": "ann"})
            seen = {name: answer.body.decode() async for name, answer in inside(port)}
    assert [answer.status for answer in told.values()] == [200, 503, 503]
    assert list((tmp_path / "gateway.spool").iterdir())  # what could not be booked
    seen |= {"log": caplog.text, "files": kept_in(tmp_path).decode("latin-1")}
    answers = {name: (answer.head + answer.body).decode() for name, answer in told.items()}
    assert wrong({**seen, **answers}, SECRETS) == []
    assert wrong(seen, {"prompt": PROMPT, "answer": SAID}) == []


@contextmanager
def closing_of(url: str, folder: Path) -> Iterator[Engine]:
    engine = open_engine(SecretStr(url), folder)
    try:
        yield engine
    finally:
        engine.dispose()


async def test_what_is_kept_of_prompts_and_answers_is_in_the_ledger_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with house(tmp_path, "sqlite:///books.db", log_content=True) as (port, _):
        answer = await post(port, "/v1/chat/completions", SECRETS["client"], {**CHAT, "model": "m"})
        assert SAID.encode() in answer.body
        seen = {name: answer.body.decode() async for name, answer in inside(port) if name != "usage/rows"}
    seen["log"] = caplog.text
    assert wrong(seen, {"prompt": PROMPT, "answer": SAID}) == []
    with sqlite3.connect(tmp_path / "books.db") as database:
        [[content]] = database.execute("SELECT content FROM requests WHERE status = 200")
    database.close()
    assert PROMPT in content and SAID in content
    assert wrong({"files": kept_in(tmp_path).decode("latin-1")}, SECRETS) == []


async def test_a_bug_tells_its_place_and_no_secret(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    counted, broken = count(), asyncio.Event()

    def new_id() -> str:
        if broken.is_set():
            raise RuntimeError("a bug")
        return f"{next(counted):024x}"

    world = World(time=lambda: 0.0, monotonic=asyncio.get_running_loop().time, new_id=new_id)
    async with house(tmp_path, "sqlite:///x.db", world) as (port, _):
        logging.getLogger("uvicorn.error").setLevel(logging.DEBUG)
        body = {**CHAT, "model": "m"}
        answers = [await post(port, "/v1/chat/completions", SECRETS["client"], body)]
        broken.set()
        answers.append(await post(port, "/v1/chat/completions", SECRETS["client"], body))
        broken.clear()
        answers.append(await post(port, "/v1/chat/completions", SECRETS["client"], body))
    told = {f"answer {number}": answer.body.decode() for number, answer in enumerate(answers)}
    log = caplog.text + capfd.readouterr().err
    assert [answer.status for answer in answers] == [200, 500, 200]
    assert "Traceback" in log
    assert wrong({**told, "log": log}, SECRETS) == []
    assert wrong({"log": log}, {"prompt": PROMPT, "answer": SAID}) == []


# --- configurations and commands ---


def spoiled() -> Iterator[tuple[str, Any]]:
    """Configurations with a secret in each place, each with something wrong at that place."""
    good = config(1, "postgresql://me:canary-password@127.0.0.1:1/x")
    places: list[tuple[str | int, ...]] = [
        ("auth", "keys", 0, "key"),
        ("auth", "keys", 0),
        ("auth", "keys"),
        ("admin", "key"),
        ("admin",),
        ("store", "url"),
        ("store",),
        ("redis", "url"),
        ("redis",),
        ("models", "m", "upstream", "modal_key"),
        ("models", "m", "upstream", "headers", "x-token"),
        ("models", "m", "upstream", "headers"),
        ("models", "m", "upstream", "url"),
        ("models", "o", "upstream", "api_key"),
        ("models", "o", "upstream"),
    ]
    for place in places:
        for wrap in (lambda value: [value], lambda value: {"x": value}, lambda value: f"{value}\n\x00é", str):
            made: Any = json.loads(json.dumps(good))
            at = made
            for step in place[:-1]:
                at = at[step]
            at[place[-1]] = wrap(at[place[-1]])
            yield ".".join(map(str, place)), made
    del good["models"]["m"]["upstream"]["modal_secret"]
    yield "half a token", good
    yield (
        "a user in the address",
        config(1, "sqlite:///x")
        | {"models": {"m": {"upstream": {"url": f"http://me:{SECRETS['header']}@127.0.0.1/"}}}},
    )
    yield "another database", config(1, f"mysql://me:{SECRETS['store']}@127.0.0.1/x")


def test_no_complaint_about_a_configuration_tells_a_secret(tmp_path: Path) -> None:
    refused = 0
    for place, data in spoiled():
        try:
            application(settings_from(data, {}), Site(tmp_path, store=True))
        except ConfigError as error:
            refused += 1
            assert wrong({place: str(error)}, SECRETS) == []
    assert refused > 40


COMMANDS = [
    "check",
    "check --json",
    "keys list",
    "keys list --json",
    "keys show own",
    "keys revoke own",
    "keys create --name ann",
    "usage",
    "usage --rows --format json",
    "render request.json",
    "config schema",
    "warm m --timeout 1",
    "serve --port 0",
]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("store", ["sqlite:///x.db", "postgresql://me:canary-password@127.0.0.1:1/x"])
def test_no_command_tells_a_secret(
    command: str,
    store: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    broken = {"models": {"m": {**config(1, store)["models"]["m"], "template": "nowhere"}}}
    data = config(1, store) | (broken if command.startswith("serve") else {})
    Path("gateway.yaml").write_text(json.dumps(data))
    Path("request.json").write_text(json.dumps({**CHAT, "model": "m"}))
    if command != "config schema":
        command += " --config gateway.yaml"
    run(command.split())
    out, err = capfd.readouterr()
    assert out or err
    assert wrong({"out": out, "err": err}, SECRETS) == []
