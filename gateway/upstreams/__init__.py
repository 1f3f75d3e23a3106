"""The only seam to the network: one file a kind of upstream.

An upstream turns a ``Call`` into batches of events. One batch is what one network read held; the last batch
ends with exactly one ``Finish``, or the iterator raises a ``GatewayError``. Closing the iterator closes the
connection at once, so that the model behind it stops generating.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from gateway.core.call import Call, Traits
from gateway.core.events import Batch


@dataclass(slots=True, frozen=True)
class Observed:
    """What the platform says of an app's containers: how many run, and how many calls wait for one."""

    runners: int
    backlog: int


@dataclass(slots=True, frozen=True)
class Traffic:
    """What goes on below the calls: connections that are open, and addresses of results followed so far."""

    connections: int = 0
    hops: int = 0


class Upstream(Protocol):
    """One place that answers calls. ``name`` is its metric label; it comes from the config."""

    name: str
    traits: Traits

    def events(self, call: Call) -> AsyncGenerator[Batch, None]: ...

    def body(self, call: Call) -> bytes:
        """The JSON body that this call would be sent with."""
        ...

    async def reachable(self) -> None:
        """Connect and hang up, sending nothing (so that no GPU wakes). Raises ``GatewayError``."""
        ...

    async def wake(self) -> Observed | None:
        """Have a container started without asking its model anything; None once one answers.

        Where only its platform can tell that one runs: what that says, once it runs; it may not answer yet.
        Raises ``NoContainer`` while there is none, and what else is wrong as ``GatewayError``.
        """
        ...

    async def observed(self) -> Observed | None:
        """What the platform knows without waking anything; None where it cannot be asked."""
        ...

    def traffic(self) -> Traffic: ...

    async def aclose(self) -> None: ...
