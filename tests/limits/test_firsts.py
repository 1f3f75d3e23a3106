"""The first requests to a model whose cost nobody knows."""

from __future__ import annotations

import asyncio

import pytest

from gateway.core.errors import RateLimited
from gateway.limits import firsts
from gateway.limits.firsts import Firsts
from tests.serve.test_gpu_seconds import rest

A, B, C, D = (object() for _ in range(4))


async def test_they_run_one_after_the_other_until_it_is_known() -> None:
    known: set[str] = set()
    turns = Firsts(known.__contains__, lambda _: False)
    went: list[object] = []

    async def turn(who: object) -> None:
        await turns.turn("m", who)
        went.append(who)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(turn(who)) for who in (A, B, C, D)]
        await rest()
        assert went == [A]
        await turns.turn("other", object())  # each model has its own
        tasks[1].cancel()
        turns.leave(A)  # which has taught nothing
        await rest()
        assert went == [A, C]
        turns.leave(object())
        known.add("m")
        turns.leave(C)
    assert went == [A, C, D]


async def test_whoever_waits_too_long_is_told_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firsts, "PATIENCE", 0.01)
    monkeypatch.setattr(firsts, "LOOK", 0.01)
    turns = Firsts(lambda _: False, lambda _: True)
    await turns.turn("m", A)
    with pytest.raises(RateLimited, match="is not known yet") as caught:
        await turns.turn("m", B)
    assert caught.value.headers == {"retry-after": "1", "retry-after-ms": "1000"}
    turns.leave(B)
    with pytest.raises(RateLimited):
        turns.take("m", C)
    turns.leave(A)
    turns.take("m", C)
    turns.take("m", C)


async def test_one_that_goes_to_another_model_lets_others_in() -> None:
    turns = Firsts(lambda _: False, lambda _: False)
    await turns.turn("m", A)
    turns.take("fallback", A)
    turns.leave(A, but="fallback")
    turns.take("m", B)
    with pytest.raises(RateLimited):
        turns.take("fallback", B)


async def test_the_start_of_a_container_tries_no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firsts, "PATIENCE", 0.02)
    monkeypatch.setattr(firsts, "LOOK", 0.01)
    looks = 0

    def answered(who: object) -> bool:
        nonlocal looks
        looks += who is A
        return looks > 20

    turns = Firsts(lambda _: False, answered)
    await turns.turn("m", A)
    with pytest.raises(RateLimited):
        await turns.turn("m", B)
    assert looks == 22
    monkeypatch.setattr(firsts, "LONGEST", 0.02)
    looks = -(10**9)
    with pytest.raises(RateLimited):
        await turns.turn("m", B)


async def test_nobody_waits_for_what_somebody_else_knew() -> None:
    known: set[str] = set()
    turns = Firsts(known.__contains__, lambda _: False)
    await turns.turn("m", A)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(turns.turn("m", B))
        await rest()
        known.add("m")
        turns.learn("m")
        turns.learn("other")
        await rest()
        assert waiting.done()
    turns.leave(A)
