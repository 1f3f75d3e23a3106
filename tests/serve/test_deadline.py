"""A limit of time ends what takes too long, and nothing else."""

import asyncio
from asyncio import CancelledError, Event, current_task, sleep

import pytest

from gateway.http.deadline import Deadline


async def test_work_that_takes_longer_is_a_timeout() -> None:
    with pytest.raises(TimeoutError), Deadline(0.0):
        await Event().wait()
    task = current_task()
    assert task is not None and not task.cancelling()
    await sleep(0)  # may be awaited as before


async def test_work_that_is_done_in_time_hears_nothing_of_it() -> None:
    with Deadline(0.0):
        pass
    await sleep(0.01)  # longer than the limit


async def test_an_error_inside_stays_the_error() -> None:
    with pytest.raises(KeyError), Deadline(10.0):
        raise KeyError


async def test_who_is_cancelled_from_outside_stays_cancelled() -> None:
    began = Event()

    async def work() -> None:
        with Deadline(10.0):
            began.set()
            await Event().wait()

    task = asyncio.get_running_loop().create_task(work())
    await began.wait()
    task.cancel()
    with pytest.raises(CancelledError):
        await task


async def test_who_is_cancelled_as_the_limit_passes_stays_cancelled() -> None:
    async def work() -> None:
        with Deadline(0.0):
            task = current_task()
            assert task is not None
            asyncio.get_running_loop().call_soon(task.cancel)
            await Event().wait()

    with pytest.raises(CancelledError):
        await asyncio.get_running_loop().create_task(work())
