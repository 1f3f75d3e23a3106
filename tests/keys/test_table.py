"""Keys in the database, the same on SQLite and PostgreSQL: one revision a change, one living key a name."""

import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from gateway.keys.key import Grant, KeyExists, NoSuchKey, SpoiltKey, digest_of, new_secret
from gateway.keys.key_store import KeyStore, StoreAway, trouble
from gateway.store.engine import open_engine, writing

FULL = {
    "name": "小王 of sales",
    "team": "sales",
    "owner": "wang@example.com",
    "models": ["a*", "b"],
    "expires": "2027-01-31T12:00:00.500Z",
    "limits": {"requests_per_minute": 60, "concurrent": 2},
    "budgets": [{"dollars": 20.5, "per": "month"}, {"gpu_seconds": 3600, "per": "week"}],
    "priority": -7,
    "tags": ["blue", "green"],
    "disabled": True,
}
"""A grant in which every field says something."""


@pytest.fixture
def key_store(database_url: str, tmp_path: Path) -> Iterator[KeyStore]:
    with closing(KeyStore(SecretStr(database_url), tmp_path)) as key_store:
        yield key_store


def add(key_store: KeyStore, name: str = "ann") -> str:
    """Its id."""
    return key_store.add(Grant(name=name), new_secret()).id


def test_a_key_is_read_as_it_was_made(key_store: KeyStore) -> None:
    grant, secret = Grant.model_validate(FULL), new_secret()
    made = key_store.add(grant, secret)
    assert set(FULL) == set(Grant.model_fields)
    assert made.grant == grant
    assert made.digest == digest_of(secret)
    assert key_store.find(made.id) == key_store.find(grant.name) == made
    assert key_store.every() == list(key_store.since(0, 10)) == [made]


def test_a_key_is_found_by_its_id_before_a_name_that_is_the_same(key_store: KeyStore) -> None:
    first = add(key_store)
    second = add(key_store, first)
    assert key_store.find(first).id == first
    assert key_store.find(second).grant.name == first


def test_a_change_leaves_what_it_does_not_name(key_store: KeyStore) -> None:
    made = key_store.add(Grant.model_validate(FULL), new_secret())
    changed = key_store.change(
        made.id, {"limits": {"concurrent": None, "requests_per_day": 5}, "disabled": False}
    )
    limits = {"requests_per_minute": 60, "requests_per_day": 5}
    assert changed.grant == Grant.model_validate({**FULL, "limits": limits, "disabled": False})
    assert key_store.find(made.id) == changed
    assert (changed.digest, changed.created) == (made.digest, made.created)
    assert changed.revision > made.revision
    with pytest.raises(ValidationError):
        key_store.change(made.id, {"priority": 1000})
    assert key_store.find(made.id) == changed


def test_a_name_belongs_to_one_living_key(key_store: KeyStore) -> None:
    first, other = add(key_store, "ann"), add(key_store, "bob")
    with pytest.raises(KeyExists):
        add(key_store, "ann")
    with pytest.raises(KeyExists):
        key_store.change(other, {"name": "ann"})
    assert key_store.change(first, {"name": "ann"}).id == first  # its own
    key_store.revoke("ann")
    second = add(key_store, "ann")
    assert key_store.find("ann").id == second
    assert key_store.find(first).revoked is not None


def test_a_rotated_key_is_the_same_with_another_secret(key_store: KeyStore) -> None:
    made, secret = key_store.add(Grant.model_validate(FULL), new_secret()), new_secret()
    turned = key_store.rotate(made.grant.name, secret)
    assert (turned.id, turned.grant, turned.digest) == (made.id, made.grant, digest_of(secret))
    assert key_store.find(made.id) == turned


def test_what_was_revoked_stays_so(key_store: KeyStore) -> None:
    made = key_store.find(add(key_store))
    ended = key_store.revoke(made.id)
    assert ended.revoked is not None and ended.revision > made.revision
    assert key_store.revoke(made.id) == ended
    for step in (
        lambda: key_store.change(made.id, {"disabled": False}),
        lambda: key_store.rotate(made.id, new_secret()),
        lambda: key_store.revoke("ann"),
        lambda: key_store.find("ann"),
    ):
        with pytest.raises(NoSuchKey):
            step()
    assert key_store.every() == [ended]


def test_who_has_seen_a_revision_is_told_what_came_after_it(key_store: KeyStore) -> None:
    ids = [add(key_store, name) for name in "abc"]
    seen = max(key.revision for key in key_store.every())
    assert key_store.since(seen, 10) == []
    key_store.change(ids[2], {"priority": 1})
    key_store.revoke(ids[0])
    assert [key.id for key in key_store.since(seen, 10)] == [ids[2], ids[0]]
    assert [key.id for key in key_store.since(seen, 1)] == [ids[2]]
    assert [key.id for key in key_store.since(0, 10)] == [ids[1], ids[2], ids[0]]


@pytest.mark.parametrize(
    "spoilt",
    ["expires = 9000000000000000000", "expires = -9000000000000", "limits = '[1]'", "priority = 900"],
)
def test_a_row_that_cannot_be_read_opens_nothing_and_spoils_no_other(
    key_store: KeyStore, database_url: str, tmp_path: Path, spoilt: str, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = add(key_store, "ann"), add(key_store, "bob")
    change(database_url, tmp_path, spoilt, bad)
    for _ in range(2):
        every = key_store.every()
        assert list(key_store.since(0, 10)) == every
        assert {key.id: (key.usable, key.state(0)) for key in every} == {
            good: (True, "active"),
            bad: (False, "unreadable"),
        }
    [said] = caplog.messages
    assert bad in said and "cannot be read" in said
    assert key_store.find("bob").shown(0)["name"] == "bob"
    for step in (
        lambda: key_store.change("bob", {"priority": 1}),
        lambda: key_store.rotate(bad, new_secret()),
    ):
        with pytest.raises(SpoiltKey, match="it can be revoked"):
            step()
    assert key_store.revoke("bob").state(0) == "revoked"
    assert add(key_store, "bob")


def test_text_that_is_no_json_spoils_no_other_row(tmp_path: Path) -> None:
    url = "sqlite:///own.db"
    with closing(KeyStore(SecretStr(url), tmp_path)) as key_store:
        bad, good = add(key_store, "ann"), add(key_store, "bob")
        change(url, tmp_path, "models = '['", bad)
        assert [key.id for key in key_store.every() if key.usable] == [good]


def change(url: str, folder: Path, assignment: str, id: str) -> None:
    """Write into a row what no gateway would."""
    engine = open_engine(SecretStr(url), folder)
    with writing(engine) as connection:
        connection.execute(text(f"UPDATE keys SET {assignment} WHERE id = :id"), {"id": id})
    engine.dispose()


def test_null_takes_limits_and_budgets_away(key_store: KeyStore) -> None:
    made = key_store.add(Grant.model_validate(FULL), new_secret())
    changed = key_store.change(made.id, {"limits": None, "budgets": None, "tags": None})
    assert changed.grant == Grant.model_validate({**FULL, "limits": {}, "budgets": [], "tags": []})
    assert key_store.find(made.id) == changed


def test_the_end_of_a_key_is_kept_in_utc(key_store: KeyStore) -> None:
    made = key_store.add(
        Grant.model_validate({"name": "a", "expires": "9998-12-31T11:59:59-12:00"}), new_secret()
    )
    [read] = key_store.every()
    assert read == made
    assert read.shown(0)["expires"] == "9998-12-31T23:59:59Z"
    for wrong in ("9999-12-31T23:59:59-12:00", "9999-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00"):
        with pytest.raises(ValidationError, match="within the years"):
            key_store.change(made.id, {"expires": wrong})


def test_a_lock_of_somebody_else_is_told_from_a_server_that_is_away(tmp_path: Path) -> None:
    path = tmp_path / "own.db"

    def failure(url: str, **more: int) -> str | None:
        engine = create_engine(url, connect_args=more)
        try:
            with engine.connect() as connection:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
        except OperationalError as error:
            return trouble(error)
        finally:
            engine.dispose()
        return ""

    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert failure(f"sqlite:///{path}", timeout=0) == "is locked by another process"
    assert failure(f"sqlite:///{path}", timeout=0) == ""
    assert failure(f"sqlite:///{tmp_path}/none/own.db") is None
    assert failure("postgresql+psycopg://u@127.0.0.1:1/x") == "does not answer"


def test_writers_at_once_never_share_a_revision_nor_a_name(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two gateways and a command line, each with connections of its own; a reader misses none of them."""
    monkeypatch.setattr("gateway.store.engine.BUSY", 60)  # none of eighty is turned away by a slow disk
    seen, revision = [], 0

    def write(number: int) -> str:
        key_store = key_stores[number % 3]
        try:
            return key_store.rotate(add(key_store, f"key {number % 20}"), new_secret()).id
        except KeyExists:
            return ""

    with ExitStack() as stack:
        made = (KeyStore(SecretStr(database_url), tmp_path) for _ in range(3))
        key_stores = [stack.enter_context(closing(key_store)) for key_store in made]
        pool = stack.enter_context(ThreadPoolExecutor(6))
        writing = [pool.submit(write, number) for number in range(40)]
        while not all(each.done() for each in writing):
            for key in key_stores[0].since(revision, 1000):
                revision = key.revision
                seen.append(key)
        ids = [each.result() for each in writing]
        seen += key_stores[0].since(revision, 1000)
        stored = key_stores[0].every()
    assert len(stored) == len(set(filter(None, ids))) == 20
    assert len({key.revision for key in stored}) == 20
    assert max(key.revision for key in stored) == 40
    assert {key.id: key for key in seen} == {key.id: key for key in stored}


@pytest.mark.parametrize(
    "step",
    [
        lambda key_store: key_store.every(),
        lambda key_store: key_store.since(0, 1),
        lambda key_store: key_store.find("x"),
        lambda key_store: key_store.add(Grant(name="x"), new_secret()),
        lambda key_store: key_store.revoke("x"),
    ],
)
@pytest.mark.parametrize("url", ["sqlite:///broken.db", "postgresql://u:canary-password@127.0.0.1:1/x"])
def test_a_database_that_cannot_be_used_says_so_and_nothing_else(
    url: str, step: Callable[[KeyStore], object], tmp_path: Path
) -> None:
    (tmp_path / "broken.db").write_text("this is no database, and nothing that could be made one\n" * 100)
    with closing(KeyStore(SecretStr(url), tmp_path)) as key_store, pytest.raises(StoreAway) as caught:
        step(key_store)
    assert str(caught.value) in ("DatabaseError", "OperationalError")
    assert caught.value.__cause__ is None
