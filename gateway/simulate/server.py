"""The simulated edge's HTTP server: the gateway's, with a way to reset a connection.

Rule: no header of its own, so that an answer is the app's to the byte.
"""

from __future__ import annotations

import uvicorn

from gateway.http.connection import Connection
from gateway.http.server import configure
from gateway.simulate.edge import RESET, Edge

DRAIN = 0.5  # seconds that open requests get at the end


class Resettable(Connection):
    """One client connection."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope[RESET] = self._reset  # type: ignore[literal-required]


def configured(edge: Edge) -> uvicorn.Config:
    """uvicorn's settings for it."""
    config = configure(edge, DRAIN)
    config.http = Resettable
    config.date_header = False
    return config
