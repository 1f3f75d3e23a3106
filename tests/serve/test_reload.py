"""Another configuration while requests run: what it changes, what goes on, and what a wrong one does."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import create_engine, text

from gateway.app import Site, application
from gateway.lifespan import FIXED
from gateway.reload import Reloader, Watch, stamp
from gateway.settings import ConfigError, Settings, settings_from
from tests.conftest import ROOT
from tests.serve.house import Container, House, Visit, container, listening, soon
from tests.serve.test_chat import post


@dataclass
class Changing:
    """A gateway whose configuration is ``data``, read at the start and at each ``reload``."""

    data: dict[str, Any]
    folder: Path
    port: int = 0
    failure: ConfigError | None = None
    outcomes: asyncio.Queue[str] = field(default_factory=asyncio.Queue)  # of reloads, as they were logged
    reloader: Reloader = field(init=False)

    def __post_init__(self) -> None:
        self.reloader = Reloader(self.read)

    def read(self) -> Settings:
        if self.failure is not None:
            raise self.failure
        return settings_from(self.data, {}, self.folder)

    async def become(self, **top: Any) -> str:
        """Another configuration; what the log says of it."""
        self.data = {**self.data, **top}
        self.reloader.ask()
        return await soon(self.outcomes.get())

    def at(self, behind: Container) -> House:
        return House(self.port, behind)


@asynccontextmanager
async def changing(data: dict[str, Any], folder: Path, *, store: bool = False) -> AsyncIterator[Changing]:
    made = Changing(data, folder)
    heard = logging.Handler()
    heard.emit = lambda record: made.outcomes.put_nowait(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("gateway")
    site = Site(folder, loopback=True, store=store, reloader=made.reloader)
    async with listening(application(made.read(), site)) as made.port:
        log.addHandler(heard)
        try:
            yield made
        finally:
            log.removeHandler(heard)


def models(**ports: Any) -> dict[str, Any]:
    """Entries of models that are called by their names, each at a port or with keys of its own."""
    made: dict[str, Any] = {}
    for name, given in ports.items():
        entry = {"port": given} if isinstance(given, int) else dict(given)
        upstream = {"url": f"http://127.0.0.1:{entry.pop('port')}/", **entry.pop("upstream", {})}
        made[name] = {"upstream": upstream, "template": "plain", **entry}
    return made


def open_door(**ports: Any) -> dict[str, Any]:
    return {"auth": {"mode": "none"}, "models": models(**ports)}


RELOADED = "the configuration was reloaded"


async def speak(visit: Visit) -> None:
    await visit.answer({"prompt": "hello"})


# --- what counts from then on ---


async def test_models_come_and_go(tmp_path: Path) -> None:
    async with container(speak) as behind, changing(open_door(m=behind.port), tmp_path) as gateway:
        at = gateway.at(behind)
        assert (await post(at, model="new")).status_code == 404
        assert await gateway.become(models=models(m=behind.port, new=behind.port)) == RELOADED
        assert (await post(at, model="new")).status_code == (await post(at)).status_code == 200
        assert await gateway.become(models=models(new=behind.port)) == RELOADED
        assert (await post(at)).status_code == 404
        async with httpx.AsyncClient() as client:
            listed = (await client.get(f"{at.url}/models")).json()["data"]
        assert [model["id"] for model in listed] == ["new"]


async def test_templates_defaults_and_limits_count_for_the_next_request(tmp_path: Path) -> None:
    async with container(speak) as behind, changing(open_door(m=behind.port), tmp_path) as gateway:
        at = gateway.at(behind)
        await post(at)
        entry = {"port": behind.port, "template": "chatml", "defaults": {"top_k": 7}, "aliases": ["other"]}
        await gateway.become(models=models(m=entry), default_model="m")
        await post(at, model="other")
        await post(at, model="whatever")
        before, *after = [visit.json for visit in behind.visits]
        assert before == {"prompt": "hi"}
        assert len(after) == 2
        assert all(each["prompt"].startswith("<|im_start|>") and each["top_k"] == 7 for each in after)
        await gateway.become(models=models(m={**entry, "limits": {"requests_per_minute": 1}}))
        assert [(await post(at)).status_code for _ in range(2)] == [200, 429]
        await gateway.become(server={"max_n": 1}, models=models(m=behind.port))
        assert (await post(at, n=2)).json()["error"]["param"] == "n"
        assert (await post(at)).status_code == 200


async def test_the_template_s_file_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "mine.jinja"
    file.write_text("one {{ messages[0].content }}")
    data = open_door(m=1)
    async with container(speak) as behind:
        data["models"] = models(m={"port": behind.port, "template": "mine.jinja"})
        async with changing(data, tmp_path) as gateway:
            await post(gateway.at(behind))
            file.write_text("two {{ messages[0].content }}")
            await gateway.become()
            await post(gateway.at(behind))
    assert [visit.json["prompt"] for visit in behind.visits] == ["one hi", "two hi"]


async def test_keys_come_and_go_and_what_one_that_left_was_asking_ends(tmp_path: Path) -> None:
    async def half(visit: Visit) -> None:
        await visit.start_stream()
        await visit.event({"prompt": "half"})
        await visit.until_closed()

    keys = [{"name": name, "key": f"sk-{name}"} for name in ("ann", "bob")]
    async with container(half) as behind:
        data = {"auth": {"keys": keys[:1]}, "models": models(m=behind.port)}
        async with changing(data, tmp_path) as gateway, asyncio.TaskGroup() as group:
            asking = group.create_task(streamed(gateway, {"authorization": "Bearer sk-ann"}))
            await soon(behind.visited.wait())
            await gateway.become(auth={"keys": keys[1:]})
            assert '"code":"key_revoked"' in await soon(asking)
            url = f"http://127.0.0.1:{gateway.port}/v1/models"
            async with httpx.AsyncClient() as client:
                tried = [await client.get(url, headers={"x-api-key": key["key"]}) for key in keys]
            assert [answer.status_code for answer in tried] == [401, 200]


async def streamed(gateway: Changing, headers: dict[str, str] | None = None) -> str:
    """What a stream says until it ends, or is cut."""
    ask = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    said = ""
    url = f"http://127.0.0.1:{gateway.port}/v1/chat/completions"
    async with (
        httpx.AsyncClient(timeout=10) as client,
        client.stream("POST", url, json=ask, headers=headers) as answer,
    ):
        with suppress(httpx.RemoteProtocolError):
            async for piece in answer.aiter_text():
                said += piece
    return said


# --- what goes on ---


async def test_an_upstream_whose_entry_did_not_change_keeps_its_connection_and_its_state(
    tmp_path: Path,
) -> None:
    async with container(speak) as behind, changing(open_door(m=behind.port), tmp_path) as gateway:
        at = gateway.at(behind)
        await post(at)
        await gateway.become(models=models(m={"port": behind.port, "aliases": ["a"]}, other=behind.port))
        after = await post(at)
        assert after.headers["x-gateway-upstream-state"] == "warm"
        assert (await post(at, model="other")).headers["x-gateway-upstream-state"] == "unknown"
        first, second, third = (visit.writer for visit in behind.visits)
        assert first is second and second is not third


async def test_a_stream_goes_on_and_its_upstream_is_closed_once_it_has_ended(tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def slow(visit: Visit) -> None:
        await visit.start_stream()
        await visit.event({"prompt": "one "})
        await go_on.wait()
        await visit.event({"prompt": "two"})
        await visit.event("[DONE]")
        await visit.end_stream()

    async with (
        container(slow) as old,
        container(speak) as new,
        changing(open_door(m=old.port), tmp_path) as gateway,
        asyncio.TaskGroup() as group,
    ):
        asking = group.create_task(streamed(gateway))
        await soon(old.visited.wait())
        await gateway.become(models=models(m=new.port))
        assert (await post(gateway.at(new))).json()["choices"][0]["message"]["content"] == "hello"
        assert not old.visits[0].writer.is_closing()
        go_on.set()
        said = await soon(asking)
        assert "one " in said and "two" in said and said.endswith("data: [DONE]\n\n")
        await soon(old.visits[0].writer.wait_closed())


async def test_a_request_may_still_turn_to_an_upstream_that_is_gone(tmp_path: Path) -> None:
    fail = asyncio.Event()

    async def failing(visit: Visit) -> None:
        await fail.wait()
        await visit.answer({}, status="500 Oops")

    async with container(failing) as first, container(speak) as second:
        data = open_door(m={"port": first.port, "fallback": ["b"]}, b=second.port)
        async with changing(data, tmp_path) as gateway, asyncio.TaskGroup() as group:
            asking = group.create_task(post(gateway.at(first)))
            await soon(first.visited.wait())
            await gateway.become(models=models(c=second.port))
            fail.set()
            assert (await soon(asking)).json()["choices"][0]["message"]["content"] == "hello"


async def test_two_models_of_which_one_is_called_like_an_upstream_of_the_other_share_none(
    tmp_path: Path,
) -> None:
    entries = models(**{"m-0": 1, "m": 1})
    async with container(speak) as behind:
        url = {"url": f"http://127.0.0.1:{behind.port}/"}
        entries["m"]["upstreams"], entries["m-0"]["upstream"] = [url, url], url
        del entries["m"]["upstream"]
        data = {"auth": {"mode": "none"}, "models": entries}
        async with changing(data, tmp_path) as gateway:
            await gateway.become()
            await post(gateway.at(behind), model="m")
            other = await post(gateway.at(behind), model="m-0")
            assert other.headers["x-gateway-upstream-state"] == "unknown"


async def test_the_idle_time_of_an_upstream_that_is_gone_is_booked(tmp_path: Path) -> None:
    async with container(speak) as behind:
        data = {**open_door(m=behind.port), "store": {"url": "sqlite:///books.db"}}
        async with changing(data, tmp_path, store=True) as gateway:
            await post(gateway.at(behind))
            await gateway.become(models=models(other=behind.port))
            await soon(behind.visits[0].writer.wait_closed())
    engine = create_engine(f"sqlite:///{tmp_path / 'books.db'}")
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT kind, model, gpu_ns FROM requests ORDER BY kind")).all()
    engine.dispose()
    assert [(kind, model) for kind, model, _ in rows] == [("idle", "m"), ("request", "m")]
    assert all(gpu > 0 for *_, gpu in rows)


# --- what is wrong, and what has to wait ---


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (
            {"models": {"m": {"upstream": {"url": "http://127.0.0.1:9"}, "template": "nowhere.jinja"}}},
            "models.m.template",
        ),
        ({"models": {}}, "models"),
        ({"model": {}}, "model: unknown key; did you mean models?"),
    ],
)
async def test_a_wrong_one_changes_nothing_and_says_why(
    wrong: dict[str, Any], says: str, tmp_path: Path
) -> None:
    async with container(speak) as behind, changing(open_door(m=behind.port), tmp_path) as gateway:
        line = await gateway.become(**wrong)
        assert line.startswith(f"the configuration was not reloaded, the old one stays: {says}")
        assert "\n" not in line
        assert (await post(gateway.at(behind))).status_code == 200


async def test_a_bug_while_it_is_read_ends_nothing(tmp_path: Path) -> None:
    async with container(speak) as behind, changing(open_door(m=behind.port), tmp_path) as gateway:
        gateway.data = {**gateway.data, "models": _Broken()}
        gateway.reloader.ask()
        assert "could not be reloaded" in await soon(gateway.outcomes.get())
        assert await gateway.become(models=models(m=behind.port, n=behind.port)) == RELOADED
        assert (await post(gateway.at(behind), model="n")).status_code == 200


class _Broken(dict[str, Any]):
    def items(self) -> Any:
        raise RuntimeError("on purpose")


async def test_keys_that_need_a_restart_are_named_until_it_comes(tmp_path: Path) -> None:
    async with container(speak) as behind, changing(open_door(m=behind.port), tmp_path) as gateway:
        named = f"{RELOADED}; these keys count only after a restart: "
        top = {"auth": {"mode": "keys", "keys": [{"name": "a", "key": "sk-a"}]}, "store": {"retain_days": 1}}
        assert await gateway.become(**top) == named + "auth.mode, store.retain_days"
        assert (await post(gateway.at(behind))).status_code == 200
        line = await gateway.become(auth={"mode": "none"}, server={"cors_origins": ["http://a"], "max_n": 3})
        assert line == named + "server.cors_origins, store.retain_days"
        assert await gateway.become(server={}, store={}) == RELOADED


def test_the_page_names_every_key_that_needs_a_restart() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text().partition("## A change while it runs")[2]
    [row] = re.findall(r"^\| (.+) \| counts after a restart", page, re.MULTILINE)
    for section, keys in FIXED.items():
        whole: Any = Settings.model_fields[section].annotation
        named = [section] if set(keys) == set(whole.model_fields) else [f"{section}.{key}" for key in keys]
        assert [name for name in named if f"`{name}`" not in row] == []


# --- under load ---


async def storm(times: int, tmp_path: Path) -> None:
    """So many reloads, by turns to another upstream, template and limits, while clients ask."""
    answers: dict[int | str, int] = {}

    async def answer(visit: Visit) -> None:
        if visit.json.get("stream"):
            await visit.say("one ", "two")
        else:
            await visit.answer({"prompt": "one two"})

    async def client(gateway: Changing, over: asyncio.Event, *, stream: bool) -> None:
        ask = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": stream}
        url = f"http://127.0.0.1:{gateway.port}/v1/chat/completions"
        async with httpx.AsyncClient(timeout=30) as http:
            while not over.is_set():
                said = await http.post(url, json=ask)
                whole = said.status_code == 200 and ("[DONE]" in said.text) is stream and "two" in said.text
                outcome = said.status_code if whole else said.text
                answers[outcome] = answers.get(outcome, 0) + 1

    async with container(answer) as one, container(answer) as two:
        kinds = [
            models(m=one.port),
            models(m={"port": two.port, "template": "chatml"}, n=one.port),
            models(m={"port": one.port, "upstream": {"max_concurrency": 50}, "limits": {"concurrent": 99}}),
        ]
        over = asyncio.Event()
        async with changing(open_door(m=one.port), tmp_path) as gateway, asyncio.TaskGroup() as group:
            for number in range(6):
                group.create_task(client(gateway, over, stream=bool(number % 2)))
            for number in range(times):
                assert await gateway.become(models=kinds[number % 3]) == RELOADED
            over.set()
        used = {id(visit.writer) for visit in (*one.visits, *two.visits)}
    assert set(answers) == {200}
    assert answers[200] > times / 10 and len(used) > 3
    assert all(visit.writer.is_closing() for visit in (*one.visits, *two.visits))


async def test_reloads_under_load_fail_no_request(tmp_path: Path) -> None:
    await storm(50, tmp_path)


@pytest.mark.slow
async def test_a_thousand_reloads_under_load_fail_no_request(tmp_path: Path) -> None:
    await storm(1000, tmp_path)


# --- the file ---


def test_a_file_has_changed_once_it_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text("one")
    watch = Watch(file, stamp(file))

    def write(what: str) -> None:
        file.write_text(what)

    def put_in_place(what: str) -> None:
        (tmp_path / "new").write_text(what)
        (tmp_path / "new").replace(file)

    assert [watch.changed() for _ in range(3)] == [False] * 3
    for change in (write, put_in_place):
        change("half of it")
        assert not watch.changed()
        change("all of it, which is longer")
        assert [watch.changed() for _ in range(4)] == [False, True, False, False]
    file.unlink()
    assert [watch.changed() for _ in range(3)] == [False] * 3
    write("another")
    assert [watch.changed() for _ in range(3)] == [False, True, False]


def test_a_file_that_was_read_for_another_reason_has_not_changed(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text("one")
    watch = Watch(file, stamp(file))
    file.write_text("another")
    watch.mark()
    assert [watch.changed() for _ in range(3)] == [False] * 3


def test_a_file_that_is_gone_is_told_once_and_is_no_change(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text("one")
    watch = Watch(file, stamp(file))
    for _ in range(2):
        caplog.clear()
        file.unlink()
        assert [watch.changed() for _ in range(4)] == [False] * 4
        assert caplog.messages == [f"the configuration file {file} is gone; what was read of it stays"]
        file.write_text("another")
        assert [watch.changed() for _ in range(3)] == [False, True, False]
    assert len(caplog.messages) == 1


def test_a_change_between_the_reading_and_the_first_look_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text("one")
    seen = stamp(file)
    file.write_text("another")
    watch = Watch(file, seen)
    assert [watch.changed() for _ in range(3)] == [False, True, False]
