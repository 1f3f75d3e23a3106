"""The frame of a request that calls a model: it begins, is answered or refused, and leaves one record.

Rule: one record, and the books closed once, whatever happens: before the last bytes go out, so that nothing
of what a client has whole is lost with a killed process. A failure before the headers is a status; after
them the stream already carries it, and returning without an end makes the server cut the connection, which no
client takes for a complete answer. Knows nothing about how a request is answered.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from gateway.core.errors import GatewayError, RequestTimeout, TooLarge
from gateway.core.value import value
from gateway.http.exchange import ClientGone, Exchange, Receive
from gateway.record import Record
from gateway.serve.headers import told
from gateway.serve.job import Job
from gateway.serve.service import Service

log = logging.getLogger("gateway")


@value
class Life:
    """One request's; ``refusal`` is the body that tells of an error, given the request's id."""

    service: Service
    job: Job
    exchange: Exchange
    refusal: Callable[[GatewayError, str], bytes]

    async def of(
        self, serving: Awaitable[None], receive: Receive, record: Callable[[int, float], Record]
    ) -> None:
        """Await ``serving``; ``record`` makes the record from the status and the time of the end."""
        service, job = self.service, self.job
        made: Record | None = None

        def close() -> Record:
            nonlocal made
            if made is None:
                made = self._made(record)
                service.books.close(job, made)
            return made

        service.began()
        service.answering.add(job.request_id)
        self.exchange.ending = close
        try:
            await answering(serving, receive, self.exchange, self._refused)
        except ClientGone:
            job.client_left = True
        finally:
            service.answering.discard(job.request_id)
            self.exchange.ending = None  # it would be a cycle
            ended = close()
            for observe in service.observe:
                observe(ended)
            if service.traced is not None and job.trace is not None:
                service.traced(ended, job)

    def _refused(self, error: GatewayError) -> bytes:
        """Take the error down; the body that tells of it."""
        job = self.job
        job.code = error.code or error.type
        if job.tries:
            error.headers.setdefault("x-gateway-upstream-state", job.visits[0].state)
        if job.lease is not None:
            error.headers = {**job.lease.headers, **error.headers}
        return self.refusal(error, job.request_id)

    def _made(self, record: Callable[[int, float], Record]) -> Record:
        """The record: without its tokens rather than none, so that what the request holds comes free."""
        status, now = self.exchange.status, self.service.world.monotonic()
        try:
            return record(status, now)
        except Exception:
            log.exception("the tokens of %s could not be counted", self.job.request_id)
            return self.job.record(status, now, counts=False)


async def answering(
    serving: Awaitable[None], receive: Receive, exchange: Exchange, refused: Callable[[GatewayError], bytes]
) -> None:
    """Await ``serving`` and tell the client what it raises, unless headers went out already.

    ``refused`` makes the body. Raises ``ClientGone``, what is a bug, and that the task was cancelled.
    """
    try:
        await serving
    except ClientGone:
        raise
    except (TooLarge, RequestTimeout) as error:
        await exchange.refuse(error, refused(error), receive)
    except (Exception, asyncio.CancelledError) as error:
        await _tell(told(error), exchange, refused)
        if not isinstance(error, GatewayError):
            raise  # the server logs a bug's traceback, and ends a task that it cancelled


async def _tell(failure: GatewayError, exchange: Exchange, refused: Callable[[GatewayError], bytes]) -> None:
    """Of its own, because a frame that an error went through and that still names it is a reference cycle."""
    body = refused(failure)
    if not exchange.started:
        await exchange.fail(failure, body)
