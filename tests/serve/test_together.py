"""Work side by side: all its results, or the first error, and a cancellation before any error."""

import asyncio
from functools import partial

import pytest

from gateway.serve.together import together
from tests.serve.house import soon


class Broken(Exception):
    """What work fails with here."""


async def test_results_come_in_the_order_of_the_work() -> None:
    turns = [asyncio.Event() for _ in range(3)]

    async def work(number: int) -> int:
        if number:
            turns[number - 1].set()
        await turns[number].wait()
        return number

    turns[2].set()
    assert await soon(together(partial(work, number) for number in range(3))) == [0, 1, 2]


@pytest.mark.parametrize("at_once", [False, True])
async def test_the_first_error_is_raised_once_all_have_ended(at_once: bool) -> None:
    begun = ended = 0
    all_begun = asyncio.Event()

    async def waits() -> None:
        nonlocal begun, ended
        begun += 1
        if begun == 2:
            all_begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended += 1
            raise OSError  # what work raises because it was ended is not the reason

    async def fails() -> None:
        if not at_once:
            await all_begun.wait()
        raise Broken

    with pytest.raises(Broken):
        await soon(together([fails, waits, waits]))
    assert begun == ended == (0 if at_once else 2)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@pytest.mark.parametrize("before", [False, True])
async def test_who_is_cancelled_in_the_turn_of_an_error_stays_cancelled(before: bool) -> None:
    fail, worker = asyncio.Event(), asyncio.Event()

    async def fails() -> None:
        worker.set()
        await fail.wait()
        raise Broken

    async with asyncio.TaskGroup() as group:
        task = group.create_task(together([fails, fails]))
        await soon(worker.wait())
        if before:
            task.cancel()
        fail.set()
        if not before:
            task.cancel()
    assert task.cancelled()
