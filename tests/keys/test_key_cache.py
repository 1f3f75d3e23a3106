"""All keys in memory: known at once, new ones found, ended ones told, whatever becomes of the store."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

import pytest
from pydantic import SecretStr

from gateway.auth import ANYONE
from gateway.core.errors import GatewayError, KeysUnavailable
from gateway.keys.key import Grant, Key, digest_of, new_secret
from gateway.keys.key_cache import PAGE, STALE, KeyCache
from gateway.keys.running import Running
from gateway.settings import ApiKey, Auth


class Store:
    """Keys by the revision of their last change; can be down, and can be held up while it reads."""

    def __init__(self) -> None:
        self.keys: dict[str, Key] = {}
        self.revision = 0
        self.looks = 0
        self.down = False
        self.closed = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def put(self, key: Key) -> Key:
        self.revision += 1
        self.keys[key.id] = key = Key(
            key.id, key.digest, key.grant, key.created, key.updated, key.revoked, self.revision
        )
        return key

    def new(self, name: str = "ann", **grant: object) -> tuple[Key, bytes]:
        secret = new_secret()
        key = self.put(Key.new(Grant.model_validate({"name": name, **grant}), secret, 0))
        return key, digest_of(secret)

    def since(self, revision: int, most: int, bound: float) -> Sequence[Key]:
        self.looks += 1
        self.gate.wait(5)
        if self.down:
            raise OSError("no database")
        changed = [key for key in self.keys.values() if key.revision > revision]
        return sorted(changed, key=lambda key: key.revision)[:most]

    def close(self) -> None:
        self.closed.set()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def auth(**secrets: str) -> Auth:
    return Auth(keys=tuple(ApiKey(name=name, key=SecretStr(key)) for name, key in secrets.items()))


async def looked(store: Store) -> None:
    """Wait until the store was asked."""
    while not store.looks:  # noqa: ASYNC110 # it is asked in a thread
        await asyncio.sleep(0)


def key_cache(store: Store, clock: Clock | None = None, ended: list[str] | None = None) -> KeyCache:
    heard = ended if ended is not None else []
    return KeyCache(Auth(), store, clock or Clock(), heard.append)


async def test_a_key_is_known_after_a_look_with_all_it_may() -> None:
    store = Store()
    key, digest = store.new("ann", team="red", models=["a*"], limits={"concurrent": 2}, priority=5)
    one = key_cache(store)
    assert one.find(digest) is None
    await one.look()
    found = one.find(digest)
    assert found is not None
    assert (found.id, found.name, found.team, found.models) == (key.id, "ann", "red", ("a*",))
    assert (found.limits.concurrent, found.priority) == (2, 5)


@pytest.mark.parametrize("change", [{"revoked": 1}, {"grant": {"name": "ann", "disabled": True}}])
async def test_a_key_that_ends_opens_nothing_and_is_told_once(change: dict[str, object]) -> None:
    store, ended = Store(), list[str]()
    key, digest = store.new()
    one = key_cache(store, ended=ended)
    await one.look()
    caller = one.find(digest)
    assert caller is not None and one.opens(caller)
    grant = Grant.model_validate(change.get("grant", {"name": "ann"}))
    store.put(Key(key.id, key.digest, grant, 0, 1, 1 if "revoked" in change else None))
    await one.look()
    await one.look()
    assert one.find(digest) is None
    assert not one.opens(caller)
    assert ended == [key.id]


async def test_a_rotated_key_ends_the_old_secret_and_opens_with_the_new() -> None:
    store, ended = Store(), list[str]()
    key, old = store.new()
    one = key_cache(store, ended=ended)
    await one.look()
    before = one.find(old)
    new = digest_of(new_secret())
    store.put(Key(key.id, new, key.grant, 0, 1))
    await one.look()
    after = one.find(new)
    assert before is not None and after is not None
    assert one.find(old) is None
    assert (one.opens(before), one.opens(after)) == (False, True)
    assert ended == [key.id]


async def test_what_a_key_may_do_can_change_without_ending_anything() -> None:
    store, ended = Store(), list[str]()
    key, digest = store.new()
    one = key_cache(store, ended=ended)
    await one.look()
    store.put(Key(key.id, key.digest, Grant(name="ann", models=("b",)), 0, 1))
    await one.look()
    found = one.find(digest)
    assert found is not None and found.models == ("b",)
    assert ended == []


async def test_however_many_wait_the_store_is_asked_twice_at_most() -> None:
    """Once for those who came while nobody was looking, once for those who came during that."""
    store = Store()
    store.gate.clear()
    one = key_cache(store)
    async with asyncio.TaskGroup() as group:
        for _ in range(100):
            group.create_task(one.look())
        await looked(store)
        for _ in range(100):
            group.create_task(one.look())
        await asyncio.sleep(0)
        store.gate.set()
    assert store.looks <= 2


async def test_a_key_made_during_a_look_is_found_by_who_asks_after_it_was_made() -> None:
    store = Store()
    one = key_cache(store)
    store.gate.clear()
    first = asyncio.get_running_loop().create_task(one.look())
    await looked(store)
    _, digest = store.new()
    second = asyncio.get_running_loop().create_task(one.look())
    store.gate.set()
    await first
    await second
    assert one.find(digest) is not None


async def test_more_keys_than_one_page_are_all_known_after_one_look() -> None:
    store = Store()
    digests = [store.new(f"key {number}")[1] for number in range(2 * PAGE + 1)]
    one = key_cache(store)
    await one.look()
    assert store.looks == 3
    assert all(one.find(digest) for digest in digests)


# --- another store, or an earlier state of it ---


def _emptied(store: Store) -> None:
    store.keys, store.revision = {}, 0


def _set_back(store: Store) -> None:
    """To when ann was the only one."""
    store.keys = {id: key for id, key in store.keys.items() if key.grant.name == "ann"}
    store.revision = 1


def _set_back_and_on(store: Store) -> None:
    _set_back(store)
    for number in range(5):
        store.new(f"new {number}")


def _deleted(store: Store) -> None:
    """By hand: the one that was changed last."""
    del store.keys[max(store.keys.values(), key=lambda key: key.revision).id]


@pytest.mark.parametrize(
    ("change", "left"),
    [(_emptied, []), (_set_back, ["ann"]), (_set_back_and_on, ["ann"]), (_deleted, ["ann", "bob"])],
)
async def test_what_another_store_does_not_have_ends_and_what_it_has_opens(
    change: Callable[[Store], None], left: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    store, clock, ended = Store(), Clock(), list[str]()
    made = {name: store.new(name) for name in ("ann", "bob", "carl")}
    one = key_cache(store, clock, ended)
    await one.look()
    change(store)
    _, new = store.new("dora")
    clock.now += STALE / 2
    await one.look()
    assert [name for name, (_, digest) in made.items() if one.find(digest)] == left
    assert sorted(ended) == sorted(key.id for name, (key, _) in made.items() if name not in left)
    assert one.find(new) is not None
    assert "replaced or set back" in caplog.text and f"{3 - len(left)} keys are no longer" in caplog.text
    caplog.clear()
    _, later = store.new("emil")
    await one.look()
    assert one.find(later) is not None and not caplog.records


async def test_what_was_taken_out_while_a_store_was_silent_ends_when_it_answers() -> None:
    """Its latest change cannot tell: the same key was changed last."""
    store, ended = Store(), list[str]()
    key, digest = store.new("ann")
    last, _ = store.new("bob")
    one = key_cache(store, ended=ended)
    await one.look()
    store.down = True
    with suppress(KeysUnavailable):
        await one.look()
    store.down = False
    del store.keys[key.id]
    store.put(last)
    await one.look()
    assert (one.find(digest), ended) == (None, [key.id])


async def test_the_latest_key_stays_who_it_was_while_nothing_changes() -> None:
    store = Store()
    _, digest = store.new()
    one = key_cache(store)
    await one.look()
    before = one.find(digest)
    await one.look()
    assert one.find(digest) is before is not None


async def test_a_store_that_falls_silent_and_comes_back_is_told_once_each(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = Store()
    one = key_cache(store)
    for down in (False, True, True, True, False, False):
        store.down = down
        with suppress(KeysUnavailable):
            await one.look()
    assert [record.getMessage() for record in caplog.records] == [
        "keys of the store cannot be read (OSError); those that are known stay valid",
        "keys of the store can be read again",
    ]


async def test_closing_closes_the_store_after_the_look_that_goes_on() -> None:
    store = Store()
    store.gate.clear()
    one = key_cache(store)
    looking = asyncio.get_running_loop().create_task(one.look())
    await looked(store)
    one.close()
    assert not store.closed.is_set()
    store.gate.set()
    await looking
    assert await asyncio.to_thread(store.closed.wait, 5)


async def test_a_request_that_was_let_in_before_its_key_ended_ends_as_it_enters() -> None:
    """Between the two it may have read a long body."""
    store = Store()
    key, digest = store.new()
    ended: list[GatewayError] = []

    class Request:
        def end(self, error: GatewayError) -> None:
            ended.append(error)

    one = key_cache(store)
    running = Running(one.opens)
    await one.look()
    caller = one.find(digest)
    assert caller is not None
    store.put(Key(key.id, digest_of(new_secret()), key.grant, 0, 1))
    await one.look()
    leave = running.enter(caller, Request())
    assert [error.code for error in ended] == ["key_revoked"]
    leave()
    Running(one.opens).enter(ANYONE, Request())
    assert len(ended) == 1


async def test_without_its_store_known_keys_go_on_for_a_while_and_unknown_ones_are_no_401() -> None:
    store, clock = Store(), Clock()
    _, digest = store.new()
    one = key_cache(store, clock)
    await one.look()
    store.down = True
    clock.now = STALE - 1
    with pytest.raises(KeysUnavailable):
        await one.look()
    assert one.find(digest) is not None
    clock.now = STALE
    assert one.find(digest) is None
    store.down = False
    await one.look()
    assert one.find(digest) is not None


async def test_all_who_wait_for_a_look_that_fails_are_told() -> None:
    store = Store()
    store.down = True
    one = key_cache(store)
    outcomes = await asyncio.gather(*(one.look() for _ in range(20)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {KeysUnavailable}
    assert store.looks <= 2


async def test_keys_of_the_configuration_need_no_store_and_end_when_they_leave_it() -> None:
    ended: list[str] = []
    a, b = digest_of("sk-a"), digest_of("sk-b")
    one = KeyCache(auth(a="sk-a", b="sk-b"), None, Clock(), ended.append)
    found = one.find(a)
    assert found is not None and found.id == "config:a"
    one.configure(Auth(keys=(ApiKey(name="b", key=SecretStr("sk-b"), models=("x",)),)))
    assert ended == ["config:a"]
    assert one.find(a) is None
    found = one.find(b)
    assert found is not None and found.models == ("x",)


async def test_a_secret_of_the_configuration_that_changes_ends_what_the_old_one_runs() -> None:
    ended: list[str] = []
    one = KeyCache(auth(a="old"), None, Clock(), ended.append)
    one.configure(auth(a="new"))
    assert ended == ["config:a"]
