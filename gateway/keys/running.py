"""The requests of each key that take a while, so that they end when the key does.

Rule: a request whose key was revoked hears of it as of any failure: a status before its answer began, an
error event afterwards. Knows nothing about where keys come from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from gateway.auth import Caller
from gateway.core.errors import GatewayError, Unauthorized


class Ends(Protocol):
    """A request that can be ended from outside."""

    def end(self, error: GatewayError) -> None: ...


class Running:
    """Requests by the id of their key; ``alive`` says whether what let a caller in would do so still."""

    def __init__(self, alive: Callable[[Caller], bool] = lambda _: True) -> None:
        self._alive = alive
        self._requests: dict[str, dict[Ends, Caller]] = {}

    def enter(self, caller: Caller, request: Ends) -> Callable[[], None]:
        """From now on ``request`` ends with the caller's key; what is returned takes it out again."""
        key = caller.id
        self._requests.setdefault(key, {})[request] = caller
        if not self._alive(caller):  # it was let in before the key ended
            request.end(_revoked())

        def leave() -> None:
            mine = self._requests[key]
            mine.pop(request, None)
            if not mine:
                del self._requests[key]

        return leave

    def end(self, key: str) -> None:
        """End the requests of this key."""
        for request in list(self._requests.get(key, ())):
            request.end(_revoked())

    def end_dead(self) -> None:
        """End the requests of all who came with what opens nothing any more."""
        entered = [item for requests in self._requests.values() for item in requests.items()]
        for request, caller in entered:
            if not self._alive(caller):
                request.end(_revoked())


def _revoked() -> GatewayError:
    return Unauthorized("This API key was revoked.", code="key_revoked")
