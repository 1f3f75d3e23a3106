"""Steps that every request to a model takes, whatever it asks for: in, on to another candidate, and out.

Rule: a try that is not made leaves no trace: until the next one begins, the job is at the one that failed.
Knows nothing about prompts or vectors.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import ParamSpec, TypeVar

from gateway.core.errors import BadRequest, GatewayError, InsufficientQuota, RateLimited
from gateway.http.exchange import Exchange, Receive, read_body
from gateway.http.stream import LiveAnswer
from gateway.routing.attempts import Candidate
from gateway.serve.headers import afterwards, headers, named
from gateway.serve.job import Job
from gateway.serve.service import Service

LONG_PROMPT = 20_000  # characters; counting the tokens of more is done off the event loop

P = ParamSpec("P")
T = TypeVar("T")


async def counted(size: int, count: Callable[P, T], *texts: P.args, **more: P.kwargs) -> T:
    """What ``count`` says of these texts, which have ``size`` characters; long ones hold up nobody else."""
    return await asyncio.to_thread(count, *texts, **more) if size > LONG_PROMPT else count(*texts, **more)


async def admitted(service: Service, job: Job, head: Mapping[bytes, bytes], receive: Receive) -> bytes:
    """The body of a request, once it is known who sends it. Raises ``GatewayError`` or ``ClientGone``."""
    job.client_request_id, job.trace = named(head), service.trace(head)
    job.caller = await service.keys.admit_body(head)
    job.admitted = True
    return await read_body(receive, head, service.limits.max_body)


async def moved(
    service: Service, job: Job, error: GatewayError, begin: Callable[[Candidate], Awaitable[None]]
) -> bool:
    """Plan for the next candidate that can take the request; false if the client must hear ``error``.

    ``begin`` sets the job's calls to a candidate, and raises ``GatewayError`` where that cannot be. Raises
    what a limit or a budget said if that is why a candidate was left out, and no other has answered.
    """
    before, done = job.snapshot(), False
    try:
        done = await _moved(service, job, error, begin)
    finally:
        if not done:
            job.restore(before)
    refused = job.attempts.refused if job.attempts is not None else None
    if not done and refused is not None and not isinstance(error, BadRequest):
        refused.headers.pop("x-should-retry", None)  # the model that was asked for may be well again
        raise refused from error
    return done


async def _moved(
    service: Service, job: Job, error: GatewayError, begin: Callable[[Candidate], Awaitable[None]]
) -> bool:
    attempts, now = job.attempts, service.world.monotonic
    if attempts is None or not attempts.affords(error, now()):
        return False
    for candidate in attempts.after(error):
        try:
            await begin(candidate)
            if not attempts.affords(error, now()):  # others paid for theirs meanwhile
                return False
            await service.books.move(job)
        except (RateLimited, InsufficientQuota) as refused:  # the caller's, whatever else fails
            attempts.refused = attempts.refused or refused
            continue
        except GatewayError:  # what this model refuses is no answer to what was asked of another
            continue
        return attempts.spend(error, now())
    return False


async def finish(live: LiveAnswer, exchange: Exchange, job: Job, body: bytes) -> None:
    """Send a whole answer; what is known only now are headers, unless those went out already."""
    if await live.settle():
        await exchange.end(body)
    else:
        await exchange.answer(body, {**headers(job), **afterwards(job)})
