"""Answers of JSON: judged at their end, and asked for again where they are not what was asked for.

Rule: what was found wrong never gets an end. A stream that cannot be mended any more is cut, one that was
held back and a whole answer are asked for again, as often as the model's ``repair_attempts`` says.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from gateway.core.errors import GatewayError, InvalidJson
from gateway.core.events import Batch, Finish
from gateway.core.wire import ChatRequest
from gateway.serve.choices import Deliver
from gateway.serve.job import Job


@dataclass(slots=True, frozen=True)
class Judging:
    """One request. ``run`` delivers the events of its calls, ``replan`` plans them anew."""

    job: Job
    run: Callable[[Deliver], Awaitable[None]]
    replan: Callable[[ChatRequest], Awaitable[None]]
    clock: Callable[[], float]

    async def live(self, send: Deliver) -> None:
        """Send an answer as it comes, but its end only once it was judged. Raises ``InvalidJson``."""
        ends: list[tuple[int, Batch]] = []

        async def pass_on(index: int, batch: Batch) -> None:
            self.job.note(index, batch, self.clock())
            if type(batch[-1]) is Finish:
                ends.append((index, batch[-1:]))
                batch = batch[:-1]
            if batch:
                await send(index, batch)

        await self.run(pass_on)
        if line := self.job.judged():
            raise _not_json(line)
        for index, batch in ends:
            await send(index, batch)

    async def mended(self, send: Deliver) -> None:
        """Send an answer once it is what was asked for; until then the model is asked again."""
        kept: list[tuple[int, Batch]] = []
        tries = 0

        async def keep(index: int, batch: Batch) -> None:
            nonlocal tries
            if self.job.tries != tries:  # what an earlier try said is forgotten with it
                tries = self.job.tries
                kept.clear()
            self.job.note(index, batch, self.clock())
            self.job.committed = False  # nothing of it was sent
            kept.append((index, batch))

        await self.run(keep)
        while line := self.job.judged():
            await self._repair(line)
            await self.run(keep)
        for index, batch in kept:
            await send(index, batch)

    async def _repair(self, line: str) -> None:
        """Plan to ask again. Raises ``InvalidJson`` if that is not to be, or not possible."""
        job = self.job
        assert job.candidate is not None
        if len(job.calls) > 1 or job.repairs >= job.candidate.deployment.repair_attempts:
            raise _not_json(line)
        request = job.again(line)
        try:
            await self.replan(request)
        except GatewayError:  # the conversation became too long
            raise _not_json(line) from None
        job.request = request


def _not_json(line: str) -> InvalidJson:
    return InvalidJson(f"The model's answer is not the JSON that was asked for: {line}.")
