"""Keys over HTTP: what each verb does, who may, and that a secret is in the one answer that makes it."""

import json
import logging
import sqlite3
import threading
import time
from collections.abc import Mapping
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

import httpx
import pytest
from starlette.requests import Request

from gateway.keys.key import Grant, Key, digest_of
from gateway.keys.key_cache import KeyCache
from gateway.keys.key_store import KeyStore
from gateway.keys.pages import KeyPages
from gateway.settings import Auth
from tests.keys.gate import ADMIN, OWN, gate, kept_in

GRANT = {
    "name": "ann",
    "team": "sales",
    "owner": "ann of sales",
    "models": ["m*"],
    "expires": "2099-01-31T12:00:00Z",
    "limits": {"requests_per_minute": 60, "concurrent": 2},
    "budgets": [{"dollars": 20.5, "per": "month"}],
    "priority": 3,
    "tags": ["blue"],
    "disabled": False,
}


def error(answer: httpx.Response) -> tuple[int, str]:
    """Status and code; an error has OpenAI's envelope."""
    told = answer.json()["error"]
    assert set(told) == {"message", "type", "param", "code"}
    return answer.status_code, told["code"]


async def test_a_key_is_made_used_changed_turned_and_revoked(tmp_path: Path) -> None:
    async with gate(tmp_path) as here:
        made = await here.admin("POST", json=GRANT)
        shown = made.json()
        id, secret = shown["id"], shown.pop("key")
        assert made.status_code == 201
        assert shown["state"] == "active"
        assert {name: shown[name] for name in GRANT if name not in ("limits", "budgets")} == {
            name: value for name, value in GRANT.items() if name not in ("limits", "budgets")
        }
        assert shown["limits"]["concurrent"] == 2 and shown["budgets"][0]["dollars"] == 20.5
        assert (await here.ask(secret)).status_code == 200

        assert (await here.admin("GET", f"/{id}")).json() == shown
        assert (await here.admin("GET", "/ann")).json() == shown

        other = {"limits": {"concurrent": None}, "models": ["other"]}
        changed = await here.admin("PATCH", "/ann", json=other)
        limits = changed.json()["limits"]
        assert (limits["requests_per_minute"], limits["concurrent"]) == (60, None)
        assert error(await here.ask(secret)) == (404, "model_not_found")

        await here.admin("PATCH", "/ann", json={"models": ["*"], "disabled": True})
        assert error(await here.ask(secret)) == (401, "invalid_api_key")
        await here.admin("PATCH", "/ann", json={"disabled": False})

        turned = await here.admin("POST", f"/{id}/rotate")
        assert turned.status_code == 200 and turned.json()["id"] == id
        assert error(await here.ask(secret)) == (401, "invalid_api_key")
        secret = turned.json()["key"]
        assert (await here.ask(secret)).status_code == 200

        gone = await here.admin("DELETE", "/ann")
        assert (gone.status_code, gone.json()["state"]) == (200, "revoked")
        assert error(await here.ask(secret)) == (401, "invalid_api_key")
        assert (await here.admin("GET", f"/{id}")).json()["state"] == "revoked"
        assert error(await here.admin("GET", "/ann")) == (404, "key_not_found")
        assert (await here.admin("POST", json=GRANT)).status_code == 201  # its name is free


async def test_the_list_has_the_keys_of_the_configuration_and_of_the_store(tmp_path: Path) -> None:
    keys = [
        {"name": "own", "key": OWN, "limits": {"concurrent": 3}, "priority": 2},
        {"name": "old", "key": "sk-old", "expires": "2020-01-01T00:00Z"},
    ]
    async with gate(tmp_path, auth={"keys": keys}) as here:
        await here.new("ann")
        rows = (await here.admin("GET")).json()["data"]
        told = [(row["name"], row["state"]) for row in rows]
        assert told == [("own", "configured"), ("old", "expired"), ("ann", "active")]
        assert rows[0]["id"] == "config:own"
        assert (rows[0]["limits"]["concurrent"], rows[0]["priority"]) == (3, 2)
        assert set(rows[0]) < set(rows[2])
        assert (await here.admin("GET", "/config:own")).json() == rows[0]
        for method in ("PATCH", "DELETE"):
            answer = await here.admin(method, "/config:own", json={"priority": 1})
            assert error(answer) == (404, "key_not_found")


async def test_the_list_says_of_keys_of_the_configuration_what_their_file_says(tmp_path: Path) -> None:
    off = {"name": "off", "key": "sk-off", "owner": "eve", "tags": ["x"], "disabled": True}
    late = {"name": "late", "key": "sk-late", "expires": "9998-12-31T11:59:59-12:00"}
    async with gate(tmp_path, auth={"keys": [off, late, {"name": "empty", "key": ""}]}) as here:
        first, second = rows = (await here.admin("GET")).json()["data"]
        assert (first["id"], first["state"], second["state"]) == ("config:off", "disabled", "configured")
        assert {name: first[name] for name in ("owner", "tags", "disabled")} == {
            "owner": "eve",
            "tags": ["x"],
            "disabled": True,
        }
        assert second["expires"] == "9998-12-31T23:59:59Z"
        assert "sk-" not in json.dumps(rows) and not {"key", "sha256"} & set(first)
        assert (await here.admin("GET", "/config:off")).json() == first
        assert error(await here.ask("sk-off")) == (401, "invalid_api_key")


async def test_a_name_may_have_any_letters_that_an_address_can_hold(tmp_path: Path) -> None:
    async with gate(tmp_path) as here:
        for name in ("a/b", "a/rotate", "小王 %"):
            id, secret = await here.new(name)
            path = f"/{quote(name, safe='')}"
            assert (await here.admin("GET", path)).json()["id"] == id
            assert (await here.admin("PATCH", path, json={"priority": 1})).json()["priority"] == 1
            turned = (await here.admin("POST", f"{path}/rotate")).json()
            assert turned["id"] == id and turned["key"] != secret
            assert (await here.admin("DELETE", path)).json()["state"] == "revoked"


async def test_null_takes_limits_and_budgets_away(tmp_path: Path) -> None:
    async with gate(tmp_path) as here:
        await here.new("ann", limits={"concurrent": 1, "requests_per_day": 5}, budgets=[{"tokens": 1}])
        changed = (await here.admin("PATCH", "/ann", json={"limits": None, "budgets": None})).json()
        assert set(changed["limits"].values()) == {None} and changed["budgets"] == []
        await here.admin("PATCH", "/ann", json={"limits": {"concurrent": 3}})
        limits = (await here.admin("GET", "/ann")).json()["limits"]
        assert (limits["concurrent"], limits["requests_per_day"]) == (3, None)


class Shown(Key):
    """A key that knows in which thread it was written down."""

    threads: ClassVar[list[int]] = []

    def shown(self, now: float) -> dict[str, Any]:
        self.threads.append(threading.get_ident())
        return super().shown(now)


async def test_the_list_is_not_written_down_on_the_event_loop(tmp_path: Path) -> None:
    class Stored(KeyStore):
        def every(self) -> list[Key]:
            return [Shown.new(Grant(name="ann"), "sk-ann", 0)]

    class Open:
        async def admit(self, head: Mapping[bytes, bytes]) -> None: ...

        async def admit_change(self, head: Mapping[bytes, bytes]) -> None: ...

    key_cache = KeyCache(Auth(), None, time.monotonic, lambda _: None)
    pages = KeyPages(Open(), key_cache, Stored(None, tmp_path), dict)
    scope = {"type": "http", "http_version": "1.1", "headers": [(b"host", b"localhost")]}
    answer = await pages.every(Request(scope))
    assert [row["name"] for row in json.loads(bytes(answer.body))["data"]] == ["ann"]
    [thread] = Shown.threads
    assert thread != threading.get_ident()


VERBS = [
    ("GET", ""),
    ("POST", ""),
    ("GET", "/ann"),
    ("PATCH", "/ann"),
    ("DELETE", "/ann"),
    ("POST", "/ann/rotate"),
]


@pytest.mark.parametrize("key", ["", "wrong", OWN, digest_of(ADMIN).hex()])
async def test_nothing_is_told_or_done_without_the_admin_key(tmp_path: Path, key: str) -> None:
    async with gate(tmp_path) as here:
        _, secret = await here.new("ann")
        before = (await here.admin("GET")).text
        for method, path in VERBS:
            for given in (key, secret):
                answer = await here.admin(method, path, key=given, json={"name": "bob"})
                assert error(answer) in ((401, "invalid_api_key"), (429, "rate_limit_exceeded"))
        assert (await here.admin("GET")).text == before
        assert (await here.ask(secret)).status_code == 200


async def test_where_this_machine_may_do_everything_a_form_of_another_site_may_not(tmp_path: Path) -> None:
    open = {"auth": {"mode": "none"}, "admin": {}}
    async with gate(tmp_path, **open) as here:
        for path in ("", "/ann/rotate"):
            answer = await here.client.post(f"/admin/keys{path}", content=b'{"name": "ann"}')
            assert error(answer) == (415, "unsupported_media_type")
        assert (await here.client.post("/admin/keys", json={"name": "ann"})).status_code == 201
        foreign = await here.client.get("/admin/keys", headers={"host": "evil.example.com"})
        assert error(foreign) == (403, "host_not_allowed")


MISTAKES: list[tuple[Any, int, str, str | None]] = [
    (b"{", 400, "invalid_json", None),
    (b"[]", 400, "", None),
    ({}, 400, "missing_required_parameter", "name"),
    ({"name": ""}, 400, "invalid_value", "name"),
    ({"name": "a\nb"}, 400, "invalid_value", "name"),
    ({"name": "bob", "moddels": []}, 400, "unsupported_parameter", "moddels"),
    ({"name": "bob", "limits": {"rpm": 1}}, 400, "unsupported_parameter", "limits.rpm"),
    ({"name": "bob", "models": []}, 400, "invalid_value", "models"),
    ({"name": "bob", "expires": "tomorrow"}, 400, "invalid_value", "expires"),
    ({"name": "bob", "limits": {"concurrent": 0}}, 400, "invalid_value", "limits.concurrent"),
    ({"name": "bob", "budgets": [{"dollars": 1, "tokens": 1}]}, 400, "invalid_value", None),
    ({"name": "bob", "key": "sk-chosen"}, 400, "unsupported_parameter", "key"),
    ({"name": "ann"}, 409, "already_exists", "name"),
    ({"name": "bob", "owner": "x" * 70_000}, 413, "request_too_large", None),
]


async def test_a_key_that_cannot_be_made_is_refused_with_what_is_wrong(tmp_path: Path) -> None:
    async with gate(tmp_path) as here:
        await here.new("ann")
        for body, status, code, param in MISTAKES:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            answer = await here.admin("POST", content=content)
            told = answer.json()["error"]
            assert answer.status_code == status, (body, told)
            assert not code or told["code"] == code, body
            assert param is None or told["param"].startswith(param), body
        assert len((await here.admin("GET")).json()["data"]) == 2


ENDS = "must be as in 90d, 2027-01-31 or 2027-01-31T12:00Z."
YEARS = "must be within the years 1970 to 9998."
PASSED = "this time has passed; to end a key now, disable or revoke it"
WORDS: list[tuple[dict[str, Any], str]] = [
    ({"limits": []}, "limits: must be an object."),
    ({"limits": {"concurrent": 0}}, "limits.concurrent: must be 1 or more."),
    ({"limits": {"concurrent": 10**17}}, "limits.concurrent: must be 1000000000000000 or less."),
    ({"limits": {"concurrent": "x"}}, "limits.concurrent: must be a whole number."),
    ({"limits": {"concurrent": "5"}}, "limits.concurrent: must be a whole number."),
    ({"limits": {"concurrent": 5.0}}, "limits.concurrent: must be a whole number."),
    ({"limits": {"concurrent": True}}, "limits.concurrent: must not be true or false."),
    ({"limits": {"x": 1}}, "limits.x: is not known here."),
    ({"budgets": {"dollars": 1}}, "budgets: must be a list."),
    ({"budgets": [3]}, "budgets[0]: must be an object."),
    ({"budgets": [{"dollars": "5"}]}, "budgets[0].dollars: must be a number."),
    ({"budgets": [{"tokens": True}]}, "budgets[0].tokens: must not be true or false."),
    ({"budgets": [{"dollars": -1}]}, "budgets[0].dollars: must be more than 0."),
    ({"budgets": [{"dollars": 1, "per": "y"}]}, "budgets[0].per: must be 'day', 'week', 'month' or 'total'."),
    ({"models": "m"}, "models: must be a list."),
    ({"models": []}, "models: must not be empty."),
    ({"tags": [1]}, "tags[0]: must be text."),
    ({"owner": "x" * 300}, "owner: must have at most 256 characters."),
    ({"priority": 101}, "priority: must be 100 or less."),
    ({"priority": "x"}, "priority: must be a whole number."),
    ({"priority": True}, "priority: must be a whole number."),
    ({"disabled": "yes"}, "disabled: must be true or false."),
    ({"disabled": 1}, "disabled: must be true or false."),
    ({"expires": "tomorrow"}, f"expires: {ENDS}"),
    ({"expires": 1900000000}, f"expires: {ENDS}"),
    ({"expires": True}, f"expires: {ENDS}"),
    ({"expires": "999999999d"}, f"expires: {YEARS}"),
    ({"expires": "9999-12-31T23:59:59-12:00"}, f"expires: {YEARS}"),
    ({"expires": "2020-01-31T12:00:00Z"}, f"expires: {PASSED}"),
    ({"name": "own"}, "name: a key of the configuration has this name"),
    ({"name": "config:zz"}, "name: must not begin with config:, key_ or oidc:, as ids do"),
    ({"name": "key_0"}, "name: must not begin with config:, key_ or oidc:, as ids do"),
    ({"name": "console"}, "name: must not be - or console, the names of those who come without a key"),
    ({"name": "-"}, "name: must not be - or console, the names of those who come without a key"),
    ({"name": 5}, "name: must be text."),
    ({"modles": []}, "modles: is no field of a key; did you mean models?"),
]


async def test_what_is_wrong_with_a_key_is_said_in_plain_words(tmp_path: Path) -> None:
    async with gate(tmp_path) as here:
        await here.new("ann")
        before = (await here.admin("GET")).text
        for fields, said in WORDS:
            made = await here.admin("POST", json={"name": "bob", **fields})
            changed = await here.admin("PATCH", "/ann", json=fields)
            for answer in (made, changed):
                assert (answer.status_code, answer.json()["error"]["message"]) == (400, said)
        assert (await here.admin("GET")).text == before


async def test_when_a_key_ends_is_said_as_on_the_command_line(tmp_path: Path) -> None:
    async with gate(tmp_path) as here:
        await here.new("ann", expires="2098-01-01")
        for given, at in [
            ("2099-01-31", "2099-01-31T00:00:00Z"),
            ("2099-01-31T12:00", "2099-01-31T12:00:00Z"),
            ("2099-01-31T12:00+02:00", "2099-01-31T10:00:00Z"),
            (None, None),
        ]:
            assert (await here.admin("PATCH", "/ann", json={"expires": given})).json()["expires"] == at
        for given, days in [("90d", 90), ("2w", 14)]:
            now = time.time()
            told = (await here.admin("PATCH", "/ann", json={"expires": given})).json()["expires"]
            assert -1 <= datetime.fromisoformat(told).timestamp() - now - days * 86400 <= 60


async def test_a_key_that_has_expired_can_be_changed_in_all_else(tmp_path: Path) -> None:
    async with gate(tmp_path) as here:
        id, _ = await here.new("ann")
        with closing(sqlite3.connect(tmp_path / "gateway.db")) as database, database:
            database.execute("UPDATE keys SET expires = 1 WHERE id = ?", (id,))
        changed = await here.admin("PATCH", "/ann", json={"priority": 1})
        assert (changed.status_code, changed.json()["state"]) == (200, "expired")


async def test_a_key_that_cannot_be_read_leaves_the_others_be(tmp_path: Path) -> None:
    async with gate(tmp_path) as here:
        await here.new("ann")
        id, _ = await here.new("bob")
        with closing(sqlite3.connect(tmp_path / "gateway.db")) as database, database:
            database.execute("UPDATE keys SET expires = 9000000000000000 WHERE id = ?", (id,))
        states = {row["name"]: row["state"] for row in (await here.admin("GET")).json()["data"]}
        assert states == {"own": "configured", "ann": "active", "bob": "unreadable"}
        _, secret = await here.new("eve")
        assert (await here.ask(secret)).status_code == 200
        assert error(await here.admin("PATCH", "/bob", json={"priority": 1})) == (404, "key_not_found")
        assert (await here.admin("DELETE", "/bob")).json()["state"] == "revoked"


async def test_a_change_that_is_wrong_changes_nothing(tmp_path: Path) -> None:
    async with gate(tmp_path) as here:
        await here.new("ann")
        await here.new("bob")
        before = (await here.admin("GET")).text
        assert (await here.admin("PATCH", "/ann", json={"priority": 101})).status_code == 400
        assert (await here.admin("PATCH", "/ann", json={"name": None})).status_code == 400
        assert (await here.admin("PATCH", "/ann", json={"revoked": None})).status_code == 400
        assert error(await here.admin("PATCH", "/ann", json={"name": "bob"})) == (409, "already_exists")
        for method, path in [("GET", "/x"), ("PATCH", "/x"), ("DELETE", "/x"), ("POST", "/x/rotate")]:
            assert error(await here.admin(method, path, json={})) == (404, "key_not_found")
        assert (await here.admin("GET")).text == before


async def test_without_a_store_the_configuration_says_it_all(tmp_path: Path) -> None:
    async with gate(tmp_path, keeps=False) as here:
        assert [row["id"] for row in (await here.admin("GET")).json()["data"]] == ["config:own"]
        assert (await here.admin("GET", "/config:own")).status_code == 200
        assert (await here.admin("GET", "/own")).json()["id"] == "config:own"
        made = await here.admin("POST", json={"name": "a"})
        assert error(made) == (404, "no_ledger") and "set store.url" in made.text
        for method, path in VERBS[2:]:
            answer = await here.admin(method, path, json={"name": "a"})
            assert error(answer) == (404, "key_not_found") and "set store.url" in answer.text


@pytest.mark.parametrize("keeps", [True, False])
async def test_a_key_of_the_configuration_is_shown_and_changed_there(tmp_path: Path, keeps: bool) -> None:
    async with gate(tmp_path, keeps=keeps) as here:
        [own] = (await here.admin("GET")).json()["data"]
        for name in ("own", "config:own"):
            assert (await here.admin("GET", f"/{name}")).json() == own
            for method, path in [("PATCH", ""), ("DELETE", ""), ("POST", "/rotate")]:
                answer = await here.admin(method, f"/{name}{path}", json={"priority": 1})
                assert error(answer) == (404, "key_not_found")
                assert "is a key of the configuration: it is changed there." in answer.text


@pytest.mark.parametrize("keeps", [True, False])
async def test_of_a_name_that_is_none_little_is_repeated(tmp_path: Path, keeps: bool) -> None:
    async with gate(tmp_path, keeps=keeps) as here:
        for sent, shown in [("x" * 5000, "x" * 61 + "..."), ("%00%1b%60y", "???y")]:
            for method, path in [("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/rotate")]:
                answer = await here.admin(method, f"/{sent}{path}", json={})
                assert error(answer) == (404, "key_not_found")
                assert f"no key `{shown}`" in answer.json()["error"]["message"]


async def test_without_its_database_the_admin_api_says_that_it_is_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with gate(tmp_path) as here:
        _, secret = await here.new("ann")
        with sqlite3.connect(tmp_path / "gateway.db") as database:
            database.execute("ALTER TABLE keys RENAME TO hidden")
        database.close()
        for method, path in VERBS:
            answer = await here.admin(method, path, json={"name": "bob"})
            assert error(answer) == (503, "keys_unavailable")
            assert answer.headers["retry-after"] == "1"
        assert (await here.ask(secret)).status_code == 200
        assert (await here.ask(OWN)).status_code == 200
    assert "the admin API cannot use the store: OperationalError" in caplog.messages


async def test_a_secret_is_in_one_answer_and_nowhere_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with gate(tmp_path) as here:
        id, first = await here.new("ann")
        second = (await here.admin("POST", f"/{id}/rotate")).json()["key"]
        assert first != second and first.startswith("sk-") and len(first) == len(second) == 46
        answers = [await here.admin("GET"), await here.admin("GET", "/ann")]
        answers.append(await here.admin("PATCH", "/ann", json={"tags": ["x"]}))
        answers.append(await here.admin("DELETE", "/ann"))
        said = "".join(answer.text + str(answer.headers) for answer in answers) + caplog.text
    kept = kept_in(tmp_path)
    for secret in (first, second, OWN, ADMIN):
        assert secret not in said
        assert secret.encode() not in kept
        assert digest_of(secret).hex() not in said
    assert digest_of(second) in kept
